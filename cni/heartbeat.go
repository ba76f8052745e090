package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	heartbeatInterval = 10 * time.Second
	maxSilence        = 60 * time.Second // of the agent, until the node should get no more pods
	maxBeatBytes      = 64 << 10
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

// beat tells the plugins that the server runs, and how it is. It is also when what couldn't be written before is tried again.
func (s *Server) beat() {
	s.dir.writing.Lock()
	defer s.dir.writing.Unlock()
	s.mu.Lock()
	s.wasReady = s.wasReady || s.lacks() == ""
	h := heartbeat{BootID: s.records.bootID, Beat: sinceBoot(), Ready: s.wasReady, Reason: s.lacks()}
	s.mu.Unlock()
	begun := s.dir.begin()
	again := map[string]error{troubleHeartbeat: s.records.writeHeartbeat(h), troubleLedger: nil}
	if s.dir.isLedgerStale {
		again[troubleLedger] = s.writeLedgerLocked()
	}
	if s.dir.has(troubleRecord) {
		again[troubleRecord] = s.records.tryWriting()
	}
	if !s.recordStays() {
		again[troubleStays] = nil
	}
	s.opts.step("looked")
	s.noteBeat(begun, again)
}

// beatSoon has beatUntil tell the plugins what has changed.
func (s *Server) beatSoon() {
	select {
	case s.changed <- struct{}{}:
	default: // it will
	}
}

func (s *Server) beatUntil(ctx context.Context) {
	tick := time.NewTicker(heartbeatInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.changed:
			s.beat()
		case <-tick.C:
			s.beat()
			s.reportHostEnds()
		case <-ctx.Done():
			return
		}
	}
}

// reportHostEnds reports what is wrong with pods' links and can't be put right, once. Only the goroutine of beatUntil calls it.
func (s *Server) reportHostEnds() {
	now := s.hostEnds.problems()
	for _, problem := range now {
		if !slices.Contains(s.reported, problem) {
			s.opts.OnProblem("PodLinkBroken", problem)
		}
	}
	s.reported = now
}

// lacks is what the node's first pod waits for, or "". The caller holds mu.
func (s *Server) lacks() string {
	switch {
	case !s.datapathReady:
		return s.datapathReason
	case len(s.addresses.prefixes) == 0 && !s.opts.PolicyOnly:
		return errNoPodCIDR.Error()
	}
	return s.dir.trouble()
}

// SetDatapathReady says whether the overlay and the first ruleset are in the kernel; if not, why. Until they are, every ADD fails
// with "try again later" and the reason. STATUS fails only until they are for the first time since the boot.
func (s *Server) SetDatapathReady(ready bool, reason string) {
	s.mu.Lock()
	s.datapathReady, s.datapathReason = ready, reason
	s.mu.Unlock()
	s.beatSoon()
}
