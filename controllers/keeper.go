package controllers

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"

	"github.com/go-logr/logr"
)

// keeper keeps the latest content of a file on a disk that may be full or slow: nobody waits for
// it. What couldn't be written is written when it is asked again. Its methods may be called
// concurrently.
type keeper struct {
	path string
	log  logr.Logger

	mu      sync.Mutex
	wanted  []byte
	isKept  bool // wanted is in the file
	writing bool // somebody does
	told    string
}

// keep replaces the content, soon.
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
			k.tell(err)
			k.mu.Unlock()
			return
		}
		k.mu.Unlock()
	}
}

// tell tells of a trouble once, and of its end. The caller holds mu.
func (k *keeper) tell(err error) {
	switch {
	case err != nil && err.Error() != k.told:
		k.told = err.Error()
		k.log.Error(err,
			"An agent that starts with a wrong configuration won't have this one; trying again",
			"file", k.path)
	case err == nil && k.told != "":
		k.told = ""
		k.log.Info("The configuration is kept for agents that start with a wrong one",
			"file", k.path)
	}
}

// save replaces a file as a whole, on the disk before it takes the old one's place, so that an
// agent or a machine that dies meanwhile leaves one of the two. One that is right already is left
// alone.
func save(path string, content []byte) error {
	if now, err := readAtMost(path, netConfMax); err == nil && bytes.Equal(now, content) {
		return nil
	}
	// Whoever dies here leaves it to the next server of the state directory, which removes what is
	// called so, or to the next write.
	unfinished := filepath.Join(filepath.Dir(path), ".new-"+filepath.Base(path))
	if err := writeSynced(unfinished, content); err != nil {
		return err
	}
	return os.Rename(unfinished, path)
}

func writeSynced(path string, content []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = os.Remove(path) // it takes room
		}
	}()
	if _, err = f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}
