package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	maxSilence   = 60 * time.Second // of the agent, until the node should get no more pods
	maxBeatBytes = 64 << 10
)

// heartbeat is the file by which a plugin knows how its agent is without asking it. The time in it is of the monotonic clock, so
// that setting the node's clock, as happens after a boot, doesn't make the agent look silent.
type heartbeat struct {
	BootID string        `json:"bootID"`
	Beat   time.Duration `json:"beat"`            // by sinceBoot
	Ready  bool          `json:"ready,omitempty"` // since this boot the datapath was ready once
	Reason string        `json:"reason,omitempty"`
}

func heartbeatPath(stateDir string) string { return filepath.Join(stateDir, "heartbeat.json") }

// readHeartbeat returns the zero heartbeat where none was written since the boot.
func readHeartbeat(stateDir string) (heartbeat, error) {
	var h heartbeat
	err := readJSON(heartbeatPath(stateDir), maxBeatBytes, &h)
	if errors.Is(err, fs.ErrNotExist) {
		return heartbeat{}, nil
	}
	if err != nil {
		return heartbeat{}, fmt.Errorf("reading the agent's heartbeat: %w", err)
	}
	if h.BootID != bootID() {
		return heartbeat{}, nil
	}
	return h, nil
}

// statusOf says, as an error of the specification, why a node whose agent left this heartbeat should carry no pod at all; now is
// by sinceBoot. Whatever lets single ADDs fail isn't a reason: runtimes make the whole node NotReady of it, with all of its pods.
func (h heartbeat) status(now time.Duration) error {
	const unavailable = "the node can't take pods"
	switch {
	case h.BootID == "":
		return types.NewError(codeNotAvailable, unavailable, "the node's agent hasn't run since the boot")
	case !h.Ready:
		return types.NewError(codeNotAvailable, unavailable, h.Reason)
	case now-h.Beat > maxSilence:
		return types.NewError(codeNotAvailable, unavailable,
			fmt.Sprintf("the node's agent has been silent for %s", (now-h.Beat).Round(time.Second)))
	}
	return nil
}
