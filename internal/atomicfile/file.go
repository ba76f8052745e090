// Package atomicfile replaces files as a whole. Whoever reads one, and whoever dies while it is
// written, the machine included, leaves the old content or the new one.
//
// The new content has a passing name first. What a writer that died leaves has that name, and is
// the caller's to remove: only it knows whether another writer may be at it. Why this is no
// library's: docs/adr/0024-files-are-replaced-by-our-own.md.
package atomicfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/pathless"
)

// A File is where content goes.
type File struct {
	Path string
	// Passing is the name that the content has before it is whole, in Path's directory: a pattern
	// as of os.CreateTemp. Without a * it is the name itself; what has it is written over.
	Passing string
	Mode    fs.FileMode // whatever the umask
	// NoSync leaves to the kernel when the content is on the disk: a machine that stops may lose
	// it.
	NoSync bool
}

// Write replaces the file's content, and returns when that is on the disk, unless with NoSync. A
// symbolic link at Path is replaced, not followed. After an error the old content may be there or
// the new one, and no other file is left. Errors don't name the passing file: one that is the same
// each time can be told once.
func (f File) Write(content []byte) error {
	return f.WriteBy(func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// WriteBy is Write of what a function writes.
func (f File) WriteBy(write func(io.Writer) error) error {
	file, err := f.create()
	if err != nil {
		return pathless.Error(err)
	}
	err = f.finish(file, write)
	if err == nil {
		err = pathless.Error(os.Rename(file.Name(), f.Path))
	}
	if err != nil {
		_ = os.Remove(file.Name()) // it takes room
		return err
	}
	if f.NoSync {
		return nil
	}
	return pathless.Error(SyncDir(filepath.Dir(f.Path)))
}

// created is the mode of a new passing file, which os.CreateTemp gives too.
const created fs.FileMode = 0o600

func (f File) create() (*os.File, error) {
	dir := filepath.Dir(f.Path)
	if strings.Contains(f.Passing, "*") {
		return os.CreateTemp(dir, f.Passing)
	}
	const flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC | unix.O_NOFOLLOW
	return os.OpenFile(filepath.Join(dir, f.Passing), flags, created)
}

// finish writes a file and closes it. It is on the disk before it gets its name: a disk may keep
// the new name and lose the content, and an empty file would have taken the old one's place. Nobody
// may find a program open for writing, or it can't be executed.
func (f File) finish(file *os.File, write func(io.Writer) error) error {
	err := write(writer{file})
	if err == nil && f.Mode != created {
		err = pathless.Error(file.Chmod(f.Mode))
	}
	if err == nil && !f.NoSync {
		err = pathless.Error(file.Sync())
	}
	return errors.Join(err, pathless.Error(file.Close()))
}

// writer keeps the file's name from errors.
type writer struct{ file *os.File }

func (w writer) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	return n, pathless.Error(err)
}

// SyncDir makes a directory's entries last.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
