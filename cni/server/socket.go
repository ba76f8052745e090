package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-net/sluice/cni"
)

// listenAgain is the time between two tries to make the socket, on a file system that can't be
// written.
const listenAgain = time.Second

// listen makes the socket as soon as its file system can be written. It returns nil when ctx ends
// before.
func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	tick := time.NewTicker(listenAgain)
	defer tick.Stop()
	for {
		listener, err := listen(s.opts.Socket)
		if err == nil || !cni.IsOfDisk(err) {
			s.noteSocket(nil)
			s.beatSoon()
			return listener, err
		}
		s.noteSocket(err)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// listen makes the socket, for root alone, in the place of one that nobody listens on.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making the directory of socket %s: %w", path, err)
	}
	if err := removeStaleSocket(path); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	// Until here the umask keeps others out, and the check of who is there does so in any case.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protecting socket %s: %w", path, err), listener.Close())
	}
	return listener, nil
}

func removeStaleSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for a stale socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way: not a socket", path)
	}
	if cni.IsAnswered(context.Background(), path) {
		// Two servers would give the same addresses to different pods.
		return fmt.Errorf("another server answers on %s", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing a stale socket: %w", err)
	}
	return nil
}
