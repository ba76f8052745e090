package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/internal/atomicfile"
)

// PluginName is the plugin's file in a runtime's directory of plugins, and its type in a network
// configuration.
const PluginName = "sluice"

const pluginMode = 0o755

// Plugin copies the plugin's program into a runtime's directory of plugins (usually /opt/cni/bin),
// which is made if it is missing. The file there is the old one or the new one at any moment,
// whole, also after a crash: runtimes execute it all the time, and one that is being executed goes
// on. What isn't a regular file is replaced, and a symbolic link isn't followed; a directory is an
// error. The same content is left alone.
//
// What an installation that was killed left behind is removed. Several may run at a time.
func Plugin(program, dir string) (changed bool, err error) {
	path := filepath.Join(dir, PluginName)
	if err := os.MkdirAll(dir, pluginMode); err != nil {
		return false, fmt.Errorf("installing the plugin: %w", err)
	}
	err = withDirLocked(dir, func() error {
		changed, err = copyProgram(program, path)
		return errors.Join(err, removeUnfinished(dir))
	})
	if cni.IsOfDisk(err) && isProgram(path) {
		return changed, fmt.Errorf("installing the plugin %s: %w: %w", path, ErrPluginStays, err)
	}
	if err != nil {
		return changed, fmt.Errorf("installing the plugin %s: %w", path, err)
	}
	return changed, nil
}

// ErrPluginStays is part of an error of Plugin where the file system is full, read-only or fails,
// and another version of the plugin is there, which goes on working with this version of the agent.
var ErrPluginStays = errors.New("the plugin that is there stays")

// isProgram reports whether a runtime can execute the file.
func isProgram(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode() == pluginMode && info.Size() > 0
}

// RemovePlugin removes the file of Plugin, and unfinished ones. A missing file is no error.
func RemovePlugin(dir string) error {
	path := filepath.Join(dir, PluginName)
	err := withDirLocked(dir, func() error {
		return errors.Join(removeFile(path), removeUnfinished(dir))
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the plugin %s: %w", path, err)
	}
	return nil
}

// withDirLocked keeps other installations away from a directory while f runs. A lock ends with its
// process.
func withDirLocked(dir string, f func() error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	//nolint:gosec // descriptors are small
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", dir, err)
	}
	return f()
}

func copyProgram(program, path string) (changed bool, err error) {
	from, err := os.Open(program)
	if err != nil {
		return false, err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return false, fmt.Errorf("%s is no program", program)
	}
	if isSame, err := isInstalled(from, info.Size(), path); isSame || err != nil {
		return false, err
	}
	file := atomicfile.File{Path: path, Passing: unfinished, Mode: pluginMode}
	// A process that is started meanwhile would have the file open until it executes its own
	// program. As long as anybody has it open for writing, no runtime can execute it.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	err = file.WriteBy(func(to io.Writer) error {
		n, err := io.Copy(to, from)
		if err == nil && n != info.Size() {
			err = fmt.Errorf("%s changes while it is read", program)
		}
		return err
	})
	return err == nil, err
}

// isInstalled reports whether the file at path has from's content, and can be executed; from is at
// its start afterwards.
func isInstalled(from io.ReadSeeker, size int64, path string) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != pluginMode || info.Size() != size {
		return false, nil // an error of replacing it says what is wrong with it
	}
	installed, err := os.Open(path)
	if err != nil {
		return false, nil
	}
	defer installed.Close()
	isSame, err := sameContent(from, installed)
	if err != nil {
		return false, err
	}
	_, err = from.Seek(0, io.SeekStart)
	return isSame, err
}

func sameContent(a, b io.Reader) (bool, error) {
	const chunk = 1 << 20
	x, y := make([]byte, chunk), make([]byte, chunk)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if atEnd(errA) && atEnd(errB) {
			return true, nil
		}
		if err := errors.Join(errA, errB); err != nil {
			return false, err
		}
	}
}

func atEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// unfinished is the pattern of the names of files that aren't whole yet: with an ending that no
// program reads.
const unfinished = ".sluice-*.new"

// removeUnfinished removes files that were to take another's place, as replaceFile and copyProgram
// name them. The caller makes sure that none is being made.
func removeUnfinished(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, entry := range entries {
		if is, err := filepath.Match(unfinished, entry.Name()); err != nil || is {
			errs = append(errs, err, removeFile(filepath.Join(dir, entry.Name())))
		}
	}
	return errors.Join(errs...)
}
