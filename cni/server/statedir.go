package server

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-net/sluice/cni"
)

// stateDir is what the server knows of its directory's health, and the order in which it writes
// what is there beside the records. A disk may be slow: nobody waits for one who holds the server's
// mu, as those who decide about policy take that too.
type stateDir struct {
	writing       sync.Mutex // of the ledger and the heartbeat. Taken before mu.
	isLedgerStale bool       // guarded by writing

	mu            sync.Mutex
	troubles      map[string]trouble // by what can't be written
	count         int                // of troubles that were noted
	isReported    bool               // that there is one which keeps new pods from starting
	staysReported bool               // that a record stays
}

// trouble is why something can't be written, and when that was noted, by the count.
type trouble struct {
	why  string
	when int
}

// What can't be written.
const (
	troubleHeartbeat = "the heartbeat"
	troubleLedger    = "the addresses in use"
	troubleRecord    = "a pod's record"
	troubleSocket    = "the socket"
	// troubleStays is of no consequence for new pods, while the others are.
	troubleStays = "a record of a pod that is gone"
)

// note remembers whether something could be written, and reports a trouble once, when it begins.
// What can be written again is reported by noteBeat alone, or a full directory would be reported
// again and again.
func (s *Server) note(what string, err error) {
	if err == nil {
		return
	}
	d := &s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count++
	d.troubles[what] = trouble{err.Error(), d.count}
	switch {
	case d.isReported: // which says more than that a record stays
	case what != troubleStays:
		d.isReported = true
		s.opts.Log.Error(err,
			"The state directory can't be written: new pods don't start until it can", "directory",
			s.opts.StateDir)
		s.opts.OnProblem("StateNotWritten",
			fmt.Sprintf("the state directory %s can't be written, so that new pods don't start: %s",
				s.opts.StateDir, err))
	case !d.staysReported:
		d.staysReported = true
		s.opts.Log.Error(err,
			"A record of a pod that is gone can't be removed: its addresses stay taken until it "+
				"can", "directory", s.opts.StateDir)
		s.opts.OnProblem("StateNotWritten",
			fmt.Sprintf("a record of a pod that is gone can't be removed from the state "+
				"directory %s, so that its addresses stay taken: %s",
				s.opts.StateDir, err))
	}
}

// noteSocket is note for the socket, which noteBeat doesn't look at; nil is its end.
func (s *Server) noteSocket(err error) {
	if err != nil {
		s.note(troubleSocket, err)
		return
	}
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	delete(s.dir.troubles, troubleSocket)
}

// noteBeat forgets the troubles that a look at the directory, begun at this count, hasn't found
// again, and tells of the end of the last one. Nothing is known of what the look wasn't for, or of
// what was noted since it began.
func (s *Server) noteBeat(begun int, again map[string]error) {
	for what, err := range again {
		s.note(what, err)
	}
	d := &s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.troubles, func(what string, t trouble) bool {
		err, isLooked := again[what]
		return isLooked && err == nil && t.when <= begun
	})
	_, stays := d.troubles[troubleStays]
	if d.isReported && (len(d.troubles) == 0 || stays && len(d.troubles) == 1) {
		d.isReported = false
		s.opts.Log.Info("The state directory is written again", "directory", s.opts.StateDir)
		s.opts.OnSolved("StateWritten", "the state directory "+s.opts.StateDir+" is written again")
	}
	if d.staysReported && !stays {
		d.staysReported = false
		s.opts.Log.Info("The records of pods that are gone are removed again", "directory",
			s.opts.StateDir)
		s.opts.OnSolved("StateWritten",
			"the records of pods that are gone are removed again from the state directory "+
				s.opts.StateDir)
	}
}

// begin is the count before a look at the directory.
func (d *stateDir) begin() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

func (d *stateDir) has(what string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, has := d.troubles[what]
	return has
}

// trouble says what can't be written, or nothing.
func (d *stateDir) trouble() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for _, t := range d.troubles {
		all = append(all, t.why)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// writeLedger writes the addresses as they are now.
func (s *Server) writeLedger() error {
	s.dir.writing.Lock()
	defer s.dir.writing.Unlock()
	return s.writeLedgerLocked()
}

// writeLedgerLocked is writeLedger for who holds writing.
func (s *Server) writeLedgerLocked() error {
	s.mu.Lock()
	now := s.addresses.ledger()
	s.mu.Unlock()
	s.opts.step("writing")
	err := s.records.WriteLedger(now)
	s.dir.isLedgerStale = err != nil
	s.note(troubleLedger, err)
	return err
}

// writeRecords writes an attachment's record, and the ledger first: an address without a record is
// found by the next server, a record without its address would be.
func (s *Server) writeRecords(a cni.Attachment) error {
	if err := s.writeLedger(); err != nil {
		return err
	}
	s.opts.step("taken")
	err := s.records.Write(a)
	s.note(troubleRecord, err)
	return err
}

// errRecordStays is why an attachment that left keeps its addresses: the next server would find the
// record, and give it them again.
var errRecordStays = errors.New("its record can't be removed yet")

// removeRecord removes the record of an attachment that leaves. The caller holds its lock.
func (s *Server) removeRecord(containerID, ifName string) error {
	err := s.records.Remove(containerID, ifName)
	s.mu.Lock()
	leaver := s.leaving[cni.AttachmentID(containerID, ifName)]
	if leaver != nil {
		leaver.hasRecord = err != nil
	}
	s.mu.Unlock()
	if err == nil {
		return nil
	}
	if leaver != nil { // or it is a file that was left out at the start, which holds no addresses
		s.note(troubleStays, err)
	}
	return fmt.Errorf("%w: %w", errRecordStays, err)
}

// recordStays tells whether an attachment that leaves has a record that couldn't be removed. The
// reaper tries again, and notes it if need be.
func (s *Server) recordStays() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, leaver := range s.leaving {
		if leaver.hasRecord {
			return true
		}
	}
	return false
}
