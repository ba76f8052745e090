// Package testdisk makes small file systems that fill up and become read-only when a test says so.
//
// A disk is a tmpfs that is mounted nowhere: it is reached by the path of a descriptor of this
// process, and gone with it, even after a killed test. Linux 5.12 or later, as root. It is not for
// production code: only _test files import it.
package testdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/test/needroot"
	"github.com/sluice-net/sluice/test/stretch"
)

// Disk is one such file system. Its methods are for the test's goroutine.
type Disk struct {
	t    testing.TB
	root int
}

// size is how many bytes a disk has.
const size = 64 << 10

// New makes an empty one.
func New(t testing.TB) *Disk {
	t.Helper()
	needroot.Skip(t)
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	must(err)
	defer unix.Close(fd)
	must(unix.FsconfigSetString(fd, "size", strconv.Itoa(size)))
	must(unix.FsconfigCreate(fd))
	root, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	must(err)
	t.Cleanup(func() { must(unix.Close(root)) })
	return &Disk{t, root}
}

// Dir is the path of its root, within this process.
func (d *Disk) Dir() string { return fmt.Sprintf("/proc/self/fd/%d", d.root) }

// ReadOnly makes it read-only, or ends that.
func (d *Disk) ReadOnly(is bool) {
	d.t.Helper()
	change := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	if is {
		change = unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(stretch.By(10 * time.Second)); ; <-tick.C {
		err := unix.MountSetattr(d.root, "", unix.AT_EMPTY_PATH, &change)
		if err == nil {
			return
		}
		// the former while a file is being written
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			d.t.Fatal(err)
		}
	}
}

// Full fills it to the last byte, or empties it again.
func (d *Disk) Full(is bool) {
	d.t.Helper()
	path := filepath.Join(d.Dir(), "filler")
	if !is {
		if err := os.Remove(path); err != nil {
			d.t.Fatal(err)
		}
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	// What was deleted before may be held by a process that another test starts at this moment, and
	// come free later.
	for deadline := time.Now().Add(stretch.By(10 * time.Second)); ; <-tick.C {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, os.Getpagesize()))
		}
		if !errors.Is(err, unix.ENOSPC) || time.Now().After(deadline) {
			d.t.Fatalf("filling the disk: %v; its files have %d bytes of %d", err, d.used(), size)
		}
		if d.used() == size {
			return
		}
	}
}

// used is how many bytes the files have that can be seen.
func (d *Disk) used() (bytes int64) {
	d.t.Helper()
	err := filepath.WalkDir(d.Dir()+"/", func(path string, _ fs.DirEntry, err error) error {
		var stat unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &stat)
		}
		bytes += stat.Blocks * 512
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a file that is written goes under its name
		d.t.Fatal(err)
	}
	return bytes
}

// Fault is what a disk may come to.
type Fault struct {
	Name string
	Set  func(d *Disk, is bool)
	Says string // in the error of who writes
}

// Faults are all of them.
func Faults() []Fault {
	return []Fault{
		{"full", (*Disk).Full, "no space left on device"},
		{"read-only", (*Disk).ReadOnly, "read-only file system"},
	}
}
