package controllers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/sluice-net/sluice/overlay"
)

// netConf is the configuration of the pod network in a file that changes: a mounted key of a
// ConfigMap, or a copy of it. The state directory keeps the configuration that was accepted last,
// so that an agent that starts with an invalid file goes on with what the node has.
type netConf struct {
	path  string
	saved *keeper // what was accepted last

	content []byte // of the file, when it was last looked at
	err     error  // why that was refused
	config  *overlay.Config
}

// netConfMax is more than any configuration needs, in bytes.
const netConfMax = 64 << 10

// read looks at the file and reports whether anything changed. err is the file's problem, if there
// is one; config is then what was accepted before.
func (n *netConf) read() (changed bool) {
	content, err := readAtMost(n.path, netConfMax)
	if err == nil && n.content != nil && bytes.Equal(content, n.content) {
		if n.err == nil {
			n.saved.keep(content) // if it couldn't be
		}
		return false
	}
	var config overlay.Config
	n.content = content // nil if it can't be read
	if err == nil {
		config, err = overlay.ParseConfig(content)
	}
	if err != nil {
		return n.refuse(fmt.Errorf("%s: %w", n.path, err))
	}
	n.err, n.config = nil, &config
	n.saved.keep(content)
	return true
}

// refuse notes a problem. At the start it falls back on what was saved.
func (n *netConf) refuse(err error) (changed bool) {
	if n.err != nil && n.err.Error() == err.Error() {
		return false
	}
	n.err = err
	if n.config != nil {
		return true
	}
	if content, err := readAtMost(n.saved.path, netConfMax); err == nil {
		if config, err := overlay.ParseConfig(content); err == nil {
			n.config = &config
		}
	}
	return true
}

func readAtMost(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil,
			fmt.Errorf("%s has %d bytes: expected a file of at most %d", path, info.Size(), most)
	}
	return os.ReadFile(path) //nolint:gosec // the operator's path
}

// watchFile calls changed when something happens in the file's directory, where kubelet replaces a
// ConfigMap's symbolic link, and every interval in case the kernel doesn't report that.
func watchFile(ctx context.Context, path string, interval time.Duration, changed func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", path, err)
	}
	defer watcher.Close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	watched := false
	for {
		if !watched {
			err := watcher.Add(filepath.Dir(path))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("watching the folder of %s: %w", path, err)
			}
			watched = err == nil
		}
		changed()
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			watched = len(watcher.WatchList()) > 0 // the folder itself can go
		case err := <-watcher.Errors: // the next look finds what was missed
			watched = err == nil
		case <-tick.C:
		}
	}
}
