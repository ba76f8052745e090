package controllers

import (
	"bytes"
	"path/filepath"
	"sync"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/internal/atomicfile"
)

// keeper writes the latest content of a file in the background, as the disk may be full or slow.
// After a failed write it tries again on request. Its methods may be called concurrently.
type keeper struct {
	path string
	log  logr.Logger

	mu       sync.Mutex
	wanted   []byte
	isKept   bool // wanted is in the file
	writing  bool // something does
	reported string
}

// keep replaces the content, without waiting for the disk.
func (k *keeper) keep(content []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.isKept && bytes.Equal(k.wanted, content) {
		return
	}
	k.wanted, k.isKept = content, false
	if !k.writing {
		k.writing = true
		go k.write()
	}
}

func (k *keeper) write() {
	for {
		k.mu.Lock()
		content := k.wanted
		k.mu.Unlock()
		err := save(k.path, content)
		k.mu.Lock()
		if err != nil || bytes.Equal(content, k.wanted) {
			k.isKept, k.writing = err == nil, false
			k.report(err)
			k.mu.Unlock()
			return
		}
		k.mu.Unlock()
	}
}

// report reports a trouble once, and its end. The caller holds mu.
func (k *keeper) report(err error) {
	switch {
	case err != nil && err.Error() != k.reported:
		k.reported = err.Error()
		k.log.Error(err,
			"An agent that starts with a wrong configuration won't have this one; trying again",
			"file", k.path)
	case err == nil && k.reported != "":
		k.reported = ""
		k.log.Info("The configuration is kept for agents that start with a wrong one",
			"file", k.path)
	}
}

// save replaces a file as a whole. The new content is on the disk before it takes the old one's
// place, so that an agent or a machine that dies meanwhile leaves one of the two. A file with the
// right content is left alone.
func save(path string, content []byte) error {
	if now, err := readAtMost(path, netConfMax); err == nil && bytes.Equal(now, content) {
		return nil
	}
	// After a crash here, the next server of the state directory removes files of this name, or the
	// next write replaces it.
	file := atomicfile.File{Path: path, Passing: ".new-" + filepath.Base(path), Mode: 0o600}
	return file.Write(content)
}
