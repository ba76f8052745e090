package cni

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

const (
	defaultAddTimeout = 45 * time.Second
	defaultCoolDown   = 60 * time.Second

	undoTimeout     = 10 * time.Second // for what must be done although the request is over
	shutdownTimeout = 5 * time.Second
	reapInterval    = 10 * time.Second
)

// ServerOptions say how a server works. Socket, StateDir and Enforcer are required.
type ServerOptions struct {
	Socket   string   // path of the unix socket; its directory is made if it is missing
	StateDir string   // directory of the records, on a file system that a reboot empties
	Enforcer Enforcer // gets every attachment
	Log      logr.Logger

	AddTimeout time.Duration    // how long an ADD may wait for its policy; 45 s by default, below the plugin's own limit
	CoolDown   time.Duration    // how long a used address rests before another pod gets it; 60 s by default
	Now        func() time.Time // time.Now by default
}

// A Server answers the plugins of one node. Its methods may be called concurrently.
type Server struct {
	opts    ServerOptions
	records records
	mux     *http.ServeMux
	busy    locks // by attachment: one request at a time

	mu          sync.Mutex // of what follows, and of the files in the state directory
	attachments map[string]Attachment
	addresses   *allocator
	nodeAddrs   []netip.Addr
	mtu         int
}

// NewServer makes a server and reads the records in the state directory. Records that can't be read or can't be true are logged and
// left out; only a directory that can't be used is an error. Nothing is served before Run.
func NewServer(opts ServerOptions) (*Server, error) {
	if opts.Socket == "" || opts.StateDir == "" || opts.Enforcer == nil {
		return nil, errors.New("a CNI server needs a socket, a state directory and an enforcer")
	}
	opts.AddTimeout = cmp.Or(opts.AddTimeout, defaultAddTimeout)
	opts.CoolDown = cmp.Or(opts.CoolDown, defaultCoolDown)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Server{
		opts:        opts,
		records:     records{stateDir: opts.StateDir},
		attachments: map[string]Attachment{},
		addresses:   newAllocator(opts.CoolDown),
	}
	if err := s.records.makeDirectories(); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	s.mux = s.routes()
	return s, nil
}

// load reads the state directory, and writes back the ledger, so that what cools down from now does so only once.
func (s *Server) load() error {
	past, err := s.records.readLedger()
	if err != nil {
		s.opts.Log.Error(err, "Addresses that were freed lately may be given again too early")
	}
	s.addresses.restore(past, s.opts.Now())
	known, bad := s.records.readAll()
	for _, err := range bad {
		s.opts.Log.Error(err, "Left out an attachment", "directory", s.records.dir())
	}
	for _, a := range known {
		s.attachments[a.ID()] = a
		for _, addr := range a.Addresses {
			s.addresses.claim(addr)
		}
	}
	return s.records.writeLedger(s.addresses.ledger())
}

// SetPodCIDRs says where addresses come from, in this order: the first valid prefix of each family. Before the first call with
// one, every ADD fails with "try again later". Addresses that pods have stay theirs.
func (s *Server) SetPodCIDRs(prefixes []netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addresses.setPrefixes(prefixes)
}

// SetNodeAddresses says which addresses the node uses towards its pods: the first of each family. Without one of a family, or while it
// isn't on the node, the kernel chooses.
func (s *Server) SetNodeAddresses(addrs []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodeAddrs = nil
	for _, addr := range addrs {
		if addr.IsValid() {
			s.nodeAddrs = append(s.nodeAddrs, addr.Unmap())
		}
	}
}

// SetMTU sets the MTU of pods to come, in bytes. 0, as before the first call, is the kernel's default.
func (s *Server) SetMTU(mtu int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mtu = mtu
}

// Attachments returns what is attached, sorted by ID. Before Run these are the records that NewServer read; their pods may be gone.
func (s *Server) Attachments() []Attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.attachments), func(a, b Attachment) int { return strings.Compare(a.ID(), b.ID()) })
}

// Handle adds another request to the socket. The pattern is as for http.ServeMux, and its path must start with /v1/. The handler
// gets requests of root only, and can read 64 KiB of a body.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Run serves until ctx ends, and then returns nil once the requests under way are answered or cut: an ADD that waits fails with "try
// again later". It replaces the socket file of a server that is no more. It must be called once only.
func (s *Server) Run(ctx context.Context) error {
	listener, err := listen(s.opts.Socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var reaper sync.WaitGroup
	reaper.Go(func() { s.reapUntil(ctx) })
	defer reaper.Wait()
	defer cancel()

	server := s.httpServer(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = server.Serve(listener)
	}()
	select {
	case <-ended:
		return fmt.Errorf("serving %s: %w", s.opts.Socket, err)
	case <-ctx.Done():
	}
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer stop()
	if server.Shutdown(grace) != nil {
		_ = server.Close() // closes connections; there is nothing to do about one that can't be
	}
	<-ended
	return nil
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
	if conn, err := net.Dial("unix", path); err == nil {
		// Two servers would give the same addresses to different pods.
		return errors.Join(fmt.Errorf("another server answers on %s", path), conn.Close())
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing a stale socket: %w", err)
	}
	return nil
}
