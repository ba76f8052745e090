package cni

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// stateDir is what the server knows of its directory's health, and the order in which it writes what is there beside the records. A disk
// may be slow: nobody waits for one who holds the server's mu, as those who decide about policy take that too.
type stateDir struct {
	writing       sync.Mutex // of the ledger and the heartbeat. Taken before mu.
	isLedgerStale bool       // guarded by writing

	mu       sync.Mutex
	troubles map[string]string // by what can't be written: why
	told     string            // the troubles, as far as they were told; empty: none
}

// isOfDisk tells whether a file system gave this error that may take it back some day.
func isOfDisk(err error) bool {
	is := func(errno unix.Errno) bool { return errors.Is(err, errno) }
	return slices.ContainsFunc([]unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO}, is)
}

// What can't be written.
const (
	troubleHeartbeat = "the heartbeat"
	troubleLedger    = "the addresses in use"
	troubleRecord    = "a pod's record"
	troubleSocket    = "the socket"
)

// note remembers whether something could be written, and tells of a trouble once, when it begins. What can be written again is told by
// noteBeat alone, or a full directory would be told of again and again.
func (s *Server) note(what string, err error) {
	if err == nil {
		return
	}
	d := &s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	d.troubles[what] = err.Error()
	if d.told != "" {
		return
	}
	d.told = err.Error()
	s.opts.Log.Error(err, "The state directory can't be written: new pods don't start until it can", "directory", s.opts.StateDir)
	s.opts.OnProblem("StateNotWritten", fmt.Sprintf("the state directory %s can't be written, so that new pods don't start: %s",
		s.opts.StateDir, err))
}

// noteSocket is note for the socket, which noteBeat doesn't look at; nil is its end.
func (s *Server) noteSocket(err error) {
	s.dir.mu.Lock()
	delete(s.dir.troubles, troubleSocket)
	s.dir.mu.Unlock()
	s.note(troubleSocket, err)
}

// noteBeat forgets the troubles that a look at the directory hasn't found again, and tells of the end of the last one.
func (s *Server) noteBeat(again map[string]error) {
	for what, err := range again {
		s.note(what, err)
	}
	d := &s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.troubles, func(what, _ string) bool { return what != troubleSocket && again[what] == nil })
	if d.told == "" || len(d.troubles) > 0 {
		return
	}
	d.told = ""
	s.opts.Log.Info("The state directory is written again", "directory", s.opts.StateDir)
	s.opts.OnSolved("StateWritten", "the state directory "+s.opts.StateDir+" is written again")
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
	return strings.Join(slices.Sorted(maps.Values(d.troubles)), "; ")
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
	err := s.records.writeLedger(now)
	s.dir.isLedgerStale = err != nil
	s.note(troubleLedger, err)
	return err
}

// writeRecords writes an attachment's record, and the ledger first: an address without a record is found by the next server, a record
// without its address would be.
func (s *Server) writeRecords(a Attachment) error {
	if err := s.writeLedger(); err != nil {
		return err
	}
	s.opts.step("taken")
	err := s.records.write(a)
	s.note(troubleRecord, err)
	return err
}

// errRecordStays is why an attachment that left keeps its addresses: the next server would find the record, and give it them again.
var errRecordStays = errors.New("its record can't be removed yet")

// removeRecord removes the record of an attachment that leaves. The caller holds its lock.
func (s *Server) removeRecord(containerID, ifName string) error {
	err := s.records.remove(containerID, ifName)
	if err == nil {
		return nil
	}
	s.note(troubleRecord, err)
	return fmt.Errorf("%w: %w", errRecordStays, err)
}
