package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// MaxSilence is how long an agent may be silent before its node gets no more pods.
const MaxSilence = 60 * time.Second

const maxBeatBytes = 64 << 10

// Heartbeat is a file that says how the agent is, without a question to it. The time in it is of
// the monotonic clock, so that setting the node's clock, as happens after a boot, doesn't make the
// agent look silent.
type Heartbeat struct {
	BootID string        `json:"bootID"`
	Beat   time.Duration `json:"beat"`            // by sinceBoot
	Ready  bool          `json:"ready,omitempty"` // since this boot the datapath was ready once
	Reason string        `json:"reason,omitempty"`
}

// HeartbeatPath is the file of a state directory in which the heartbeat is.
func HeartbeatPath(stateDir string) string { return filepath.Join(stateDir, "heartbeat.json") }

// ReadHeartbeat returns the zero heartbeat where none was written since the boot.
func ReadHeartbeat(stateDir string) (Heartbeat, error) {
	var h Heartbeat
	err := readJSON(HeartbeatPath(stateDir), maxBeatBytes, &h)
	if errors.Is(err, fs.ErrNotExist) {
		return Heartbeat{}, nil
	}
	if err != nil {
		return Heartbeat{}, fmt.Errorf("reading the agent's heartbeat: %w", err)
	}
	if h.BootID != bootID() {
		return Heartbeat{}, nil
	}
	return h, nil
}

// Status returns, as an error of the specification, why a node whose agent left this heartbeat
// should have no pods; now is by sinceBoot. Causes that let single ADDs fail are no reason: a
// failed STATUS makes the whole node NotReady, with all of its pods.
func (h Heartbeat) Status(now time.Duration) *types.Error {
	const unavailable = "the node can't take pods"
	switch {
	case h.BootID == "":
		return types.NewError(CodeNotAvailable, unavailable,
			"the node's agent hasn't run since the boot")
	case !h.Ready:
		return types.NewError(CodeNotAvailable, unavailable, h.Reason)
	case now-h.Beat > MaxSilence:
		return types.NewError(CodeNotAvailable, unavailable,
			fmt.Sprintf("the node's agent has been silent for %s", (now-h.Beat).Round(time.Second)))
	}
	return nil
}
