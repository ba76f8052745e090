package server

import (
	"context"
	"slices"
	"time"

	"github.com/sluice-net/sluice/cni"
)

const heartbeatInterval = 10 * time.Second

// beat tells the plugins that the server runs, and how it is. It is also when what couldn't be
// written before is tried again.
func (s *Server) beat() {
	s.dir.writing.Lock()
	defer s.dir.writing.Unlock()
	var ledger error
	if s.dir.isLedgerStale {
		ledger = s.writeLedgerLocked()
		s.note(troubleLedger, ledger) // before the heartbeat, which may have to say it
	}
	s.mu.Lock()
	s.wasReady = s.wasReady || s.lacks() == ""
	h := cni.Heartbeat{BootID: s.records.BootID, Beat: cni.SinceBoot(), Ready: s.wasReady,
		Reason: s.lacks()}
	s.mu.Unlock()
	begun := s.dir.begin()
	again := map[string]error{troubleHeartbeat: s.records.WriteHeartbeat(h), troubleLedger: ledger}
	if s.dir.has(troubleRecord) {
		again[troubleRecord] = s.records.TryWriting()
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
			select {
			case <-s.changed: // what STATUS says while no agent runs is what it said last
				s.beat()
			default:
			}
			return
		}
	}
}

// reportHostEnds reports what is wrong with pods' links and can't be put right, once. Only the
// goroutine of beatUntil calls it.
func (s *Server) reportHostEnds() {
	now := s.hostEnds.Problems()
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

// SetDatapathReady says whether the overlay and the first ruleset are in the kernel; if not, why.
// Until they are, every ADD fails with "try again later" and the reason. STATUS fails only until
// they are for the first time since the boot.
func (s *Server) SetDatapathReady(ready bool, reason string) {
	s.mu.Lock()
	s.datapathReady, s.datapathReason = ready, reason
	s.mu.Unlock()
	s.beatSoon()
}
