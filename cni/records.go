package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/atomicfile"
)

const (
	recordSuffix = ".json"
	temporary    = ".new-" // starts the names of files that aren't complete
	// maxRecordBytes: a record is larger than the request that it comes of, above all where JSON
	// has to escape
	maxRecordBytes = 4 * MaxRequestBytes
	maxLedgerBytes = 16 << 20
)

// Records keeps one file for each attachment in a directory, and the ledger of addresses beside it.
// A file is complete or isn't there: it is written under another name first. Who uses it sees to it
// that no two calls are about the same file.
//
// Files carry the boot that they are of. A state directory can outlive a reboot, pods don't: what
// another boot left is removed.
type Records struct {
	stateDir string
	BootID   string
}

// OpenRecords returns the Records of a state directory, of this boot. It touches no file.
func OpenRecords(stateDir string) Records { return Records{stateDir, bootID()} }

// record is what is in an attachment's file.
type record struct {
	Attachment

	BootID string `json:"bootID,omitempty"` // empty: of this boot
}

// errOtherBoot is the error of a record from before the reboot.
var errOtherBoot = errors.New("of another boot")

// Dir is the directory with a file for each attachment.
func (r Records) Dir() string { return filepath.Join(r.stateDir, "attachments") }

// LedgerPath is the file of the addresses in use.
func (r Records) LedgerPath() string { return filepath.Join(r.stateDir, "addresses.json") }

// Path is the record's file. No two attachments share one, as a container ID has no @.
func (r Records) Path(containerID, ifName string) string {
	return filepath.Join(r.Dir(), containerID+"@"+ifName+recordSuffix)
}

// MakeDirectories makes what is missing.
func (r Records) MakeDirectories() error {
	if err := os.MkdirAll(r.Dir(), 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	return nil
}

func (r Records) Write(a Attachment) error {
	if err := r.MakeDirectories(); err != nil { // they may have been missing, and the disk full
		return err
	}
	if err := writeJSON(r.Path(a.ContainerID, a.IfName), record{a, r.BootID}); err != nil {
		return fmt.Errorf("recording attachment %s: %w", a.ID(), err)
	}
	return nil
}

// TryWriting reports whether records can be written and removed.
func (r Records) TryWriting() error {
	if err := r.MakeDirectories(); err != nil {
		return err
	}
	path := filepath.Join(r.Dir(), temporary+"trial")
	if err := writeJSON(path, record{}); err != nil {
		return fmt.Errorf("recording attachments: %w", err)
	}
	return os.Remove(path)
}

// Remove removes an attachment's record. A missing one is no error, also on a read-only file
// system, where the removal fails in any case.
func (r Records) Remove(containerID, ifName string) error {
	path := r.Path(containerID, ifName)
	if err := os.Remove(path); err != nil && !isMissing(path) {
		return fmt.Errorf("removing the record of attachment %s: %w",
			AttachmentID(containerID, ifName), err)
	}
	return nil
}

// IsGone reports whether the record was removed; in doubt, it wasn't.
func (r Records) IsGone(a Attachment) bool { return isMissing(r.Path(a.ContainerID, a.IfName)) }

func isMissing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// Read returns the record of one attachment.
func (r Records) Read(containerID, ifName string) (Attachment, error) {
	var found record
	if err := readJSON(r.Path(containerID, ifName), maxRecordBytes, &found); err != nil {
		return Attachment{}, err
	}
	if !r.isOfThisBoot(found.BootID) {
		return Attachment{}, errOtherBoot
	}
	a := found.Attachment
	if a.ContainerID != containerID || a.IfName != ifName {
		return Attachment{}, fmt.Errorf("it is of %s", Quote(a.ID()))
	}
	return a, a.validate()
}

func (r Records) isOfThisBoot(bootID string) bool {
	return bootID == "" || r.BootID == "" || bootID == r.BootID
}

// RemoveUnfinished removes the unfinished files of a server that died. The caller is the only
// server.
func (r Records) RemoveUnfinished() {
	// the latter has the ledger and the heartbeat
	for _, dir := range []string{r.Dir(), r.stateDir} {
		names, _ := filepath.Glob(filepath.Join(dir, temporary+"*")) // the pattern is good
		for _, name := range names {
			_ = os.Remove(name) // it does no harm
		}
	}
}

// Files are all files of a state directory's records, existing or not: the records, the ledger, the
// heartbeat, and unfinished ones.
func (r Records) Files() []string {
	// the pattern is good
	recordFiles, _ := filepath.Glob(filepath.Join(r.Dir(), "*@*"+recordSuffix))
	unfinishedFiles, _ := filepath.Glob(filepath.Join(r.stateDir, temporary+"*"))
	return slices.Concat(recordFiles, unfinishedFiles,
		[]string{r.LedgerPath(), HeartbeatPath(r.stateDir)})
}

// ReadAll returns the attachments with a good record, sorted by ID, and in bad an error for each
// other file. Records of another boot are removed. A missing directory has none; an unreadable one
// is an error. Others may write meanwhile.
func (r Records) ReadAll() (all []Attachment, bad []error, err error) {
	entries, err := os.ReadDir(r.Dir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("reading the records: %w", err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), temporary) {
			continue
		}
		a, err := r.readNamed(entry.Name())
		if errors.Is(err, errOtherBoot) {
			err = os.Remove(filepath.Join(r.Dir(), entry.Name()))
			if err == nil {
				continue
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was removed meanwhile
		}
		if err == nil {
			err = collision(all, a)
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("record %s: %w", Quote(entry.Name()), err))
			continue
		}
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b Attachment) int { return strings.Compare(a.ID(), b.ID()) })
	return all, bad, nil
}

func (r Records) readNamed(file string) (Attachment, error) {
	id, isRecord := strings.CutSuffix(file, recordSuffix)
	containerID, ifName, isID := strings.Cut(id, "@")
	if !isRecord || !isID {
		return Attachment{}, errors.New("not the name of a record")
	}
	return r.Read(containerID, ifName)
}

// collision returns which of the others has an address or the link of a.
func collision(others []Attachment, a Attachment) error {
	for _, other := range others {
		if a.Interface != "" && other.Interface == a.Interface {
			return fmt.Errorf("has the interface of %s", other.ID())
		}
		for _, addr := range a.Addresses {
			if slices.Contains(other.Addresses, addr) {
				return fmt.Errorf("has the address %s of %s", addr, other.ID())
			}
		}
	}
	return nil
}

// WriteLedger replaces the ledger by one of this boot.
func (r Records) WriteLedger(l Ledger) error {
	l.BootID = r.BootID
	if err := writeJSON(r.LedgerPath(), l); err != nil {
		return fmt.Errorf("recording the addresses in use: %w", err)
	}
	return nil
}

// ReadLedger returns an empty one where there is none. The times of another boot's don't count: the
// pods are gone, but other nodes may not know it yet, so the addresses cool down from now.
func (r Records) ReadLedger() (Ledger, error) {
	var l Ledger
	err := readJSON(r.LedgerPath(), maxLedgerBytes, &l)
	if errors.Is(err, fs.ErrNotExist) {
		return Ledger{}, nil
	}
	if err != nil {
		return Ledger{}, fmt.Errorf("reading the addresses in use: %w", err)
	}
	if l.BootID == "" || l.BootID != r.BootID {
		return l.ofUnknownTime(), nil
	}
	return l, nil
}

// WriteHeartbeat replaces the heartbeat.
func (r Records) WriteHeartbeat(h Heartbeat) error {
	// It isn't synced: what it says ends with the machine, and without content it says "not ready".
	if err := writeFile(HeartbeatPath(r.stateDir), h, true); err != nil {
		return fmt.Errorf("telling the plugin that the agent runs: %w", err)
	}
	return nil
}

// writeJSON replaces a file as a whole, or fails and leaves it as it is. It is on the disk then. A
// reboot ends what it says, but the state directory may outlive that: a file without content would
// be read as damaged, not as of another boot, and such a ledger has every address rest.
func writeJSON(path string, value any) error { return writeFile(path, value, false) }

func writeFile(path string, value any, noSync bool) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	file := atomicfile.File{Path: path, Passing: temporary + "*", Mode: 0o600, NoSync: noSync}
	return file.Write(append(data, '\n'))
}

// readJSON reads a regular file. It follows no link, waits for no pipe, and ignores unknown fields,
// which a later version may have.
func readJSON(path string, maxBytes int64, into any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return err
	}
	if int64(len(data)) > maxBytes {
		return fmt.Errorf("larger than %d bytes", maxBytes)
	}
	return json.Unmarshal(data, into)
}
