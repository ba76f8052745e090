package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/podlink"
)

const (
	defaultAddTimeout = 45 * time.Second
	defaultCoolDown   = 60 * time.Second

	undoTimeout     = 10 * time.Second // for what must be done although the request is over
	shutdownTimeout = 5 * time.Second
)

// Options say how a server works. Socket, StateDir and Enforcer are required.
type Options struct {
	Socket   string   // path of the unix socket; its directory is made if it is missing
	StateDir string   // directory of the records, on a file system that a reboot empties
	Enforcer Enforcer // gets every attachment
	Log      logr.Logger

	// PolicyOnly says that another plugin wires the node's pods: only ADDs of mode "policy" are
	// served, and no host end is kept.
	PolicyOnly bool

	// OnProblem gets what a person should know, once when it begins: reason is one word in
	// CamelCase, such as AddressPoolExhausted. It must not block. May be nil.
	OnProblem func(reason, message string)
	// OnSolved gets the end of it likewise. May be nil.
	OnSolved func(reason, message string)

	// how long an ADD may wait for its policy; 45 s by default, below the plugin's own limit
	addTimeout time.Duration
	// how long a used address rests before another pod gets it; 60 s by default
	CoolDown time.Duration
	// since the boot, of a clock that nobody sets; the kernel's monotonic one by default
	Now func() time.Duration

	// ReservedPorts are ports of the node that no pod to come gets as a host port. Pods that have
	// them keep them.
	ReservedPorts []ReservedPort

	// NetNS is the network namespace of the pods' host ends. Nil, as in an agent, is that of the
	// process.
	NetNS ns.NetNS
	// SysctlDir is where /proc/sys/net of that namespace can be written to; that by default.
	SysctlDir string

	step func(name string) // called after each step of an ADD or a beat; for tests
}

// A Server answers the plugins of one node. Its methods may be called concurrently.
type Server struct {
	opts    Options
	records cni.Records
	mux     *http.ServeMux
	busy    locks // by attachment: one request at a time

	connections connectionForgetter

	hostEnds  *podlink.Keeper
	reporting sync.Mutex // of calls of its set
	reported  []string   // its problems, as far as they were reported

	background sync.WaitGroup  // of DELs that are answered
	life       context.Context // of background; set by Run

	dir     stateDir
	changed chan struct{} // what the heartbeat says

	mu          sync.Mutex // of what follows. Who holds it waits for no disk.
	attachments map[string]cni.Attachment
	isStopped   bool
	leaving     map[string]*leaver // the attachments that are being dropped
	addresses   *allocator
	nodeAddrs   []netip.Addr
	podCIDRs    []netip.Prefix // the node's, whose unused addresses are unreachable
	mtu         int
	tunnelPort  uint16 // 0: there is no tunnel

	datapathReady  bool
	datapathReason string // why it isn't
	wasReady       bool   // once since the boot
	exhausted      bool   // the latest ADD found no free address

	placed     map[string]time.Duration // by attachment: when its latest ADD began, or this server
	goneBefore map[string]bool          // what the reaper's last look found without a pod
	seen       map[string]bool          // by attachment: its network namespace was seen
}

// New makes a server and reads the records in the state directory. Records that can't be read or
// can't be true are logged and left out; only a directory that can't be read is an error. Where it
// can't be written, ADD fails retryably. Nothing is served before Run.
func New(opts Options) (*Server, error) {
	if opts.Socket == "" || opts.StateDir == "" || opts.Enforcer == nil {
		return nil, errors.New("a CNI server needs a socket, a state directory and an enforcer")
	}
	opts.addTimeout = cmp.Or(opts.addTimeout, defaultAddTimeout)
	opts.CoolDown = cmp.Or(opts.CoolDown, defaultCoolDown)
	if opts.Now == nil {
		opts.Now = cni.SinceBoot
	}
	if opts.step == nil {
		opts.step = func(string) {}
	}
	if opts.OnProblem == nil {
		opts.OnProblem = func(string, string) {}
	}
	if opts.OnSolved == nil {
		opts.OnSolved = func(string, string) {}
	}
	s := &Server{
		opts:        opts,
		records:     cni.OpenRecords(opts.StateDir),
		life:        context.Background(),
		dir:         stateDir{troubles: map[string]trouble{}},
		changed:     make(chan struct{}, 1),
		attachments: map[string]cni.Attachment{},
		leaving:     map[string]*leaver{},
		addresses:   newAllocator(opts.CoolDown),
		hostEnds: podlink.NewKeeper(podlink.KeeperOptions{Log: opts.Log,
			SysctlDir: opts.SysctlDir, NetNS: opts.NetNS}),
		datapathReason: "the agent has only just started",
		placed:         map[string]time.Duration{},
		goneBefore:     map[string]bool{},
		seen:           map[string]bool{},
	}
	s.connections.walk = func(addrs []netip.Addr) error {
		return s.inHost(func() error { return forgetConnections(addrs) })
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	s.mux = s.routes()
	return s, nil
}

// load reads the state directory, and writes back the ledger, so that what cools down from now does
// so only once.
func (s *Server) load() error {
	past, err := s.records.ReadLedger()
	if err != nil {
		s.opts.Log.Error(err, "Nobody knows which addresses were freed lately: no pod gets one "+
			"until all have cooled down", "after", s.opts.CoolDown.String())
		s.addresses.restAll(s.opts.Now())
	}
	s.addresses.restore(past, s.opts.Now())
	s.records.RemoveUnfinished()
	known, bad, err := s.records.ReadAll()
	if err != nil {
		return err // without them all pods would lose their place
	}
	for _, err := range bad {
		s.opts.Log.Error(err, "Left out an attachment", "directory", s.records.Dir())
	}
	for _, a := range known {
		s.attachments[a.ID()] = a
		s.placed[a.ID()] = s.opts.Now()
		for _, addr := range a.Addresses {
			s.addresses.claim(addr)
		}
	}
	last, err := cni.ReadHeartbeat(s.opts.StateDir)
	if err != nil {
		s.opts.Log.Error(err, "The node can't take pods until the datapath is ready again")
	}
	s.wasReady = last.Ready
	s.keepHostEnds()
	s.note(troubleRecord, s.records.MakeDirectories())
	s.dir.isLedgerStale = true // the first beat writes it: the start waits for no disk
	return nil
}

// SetPodCIDRs says where addresses come from, in this order: the first valid prefix of each family.
// Before the first call with one, every ADD fails with "try again later". Addresses that pods have
// stay theirs. Where another plugin gives the addresses, they must be in these prefixes, if there
// are any of the family.
func (s *Server) SetPodCIDRs(prefixes []netip.Prefix) {
	s.mu.Lock()
	s.addresses.setPrefixes(prefixes)
	s.mu.Unlock()
	s.keepHostEnds()
	s.beatSoon()
}

// SetOwnPodCIDRs says which podCIDRs the node has, also while addresses can't be given: those of
// their addresses that no pod has are unreachable.
func (s *Server) SetOwnPodCIDRs(prefixes []netip.Prefix) {
	s.mu.Lock()
	s.podCIDRs = slices.Clone(prefixes)
	s.mu.Unlock()
	s.keepHostEnds()
}

// SetNodeAddresses says which addresses the node uses towards its pods: the first of each family.
// Without one of a family, or while it isn't on the node, the kernel chooses.
func (s *Server) SetNodeAddresses(addrs []netip.Addr) {
	s.mu.Lock()
	s.nodeAddrs = nil
	for _, addr := range addrs {
		if addr.IsValid() {
			s.nodeAddrs = append(s.nodeAddrs, addr.Unmap())
		}
	}
	s.mu.Unlock()
	s.keepHostEnds()
}

// SetMTU sets the MTU of pods to come, in bytes. 0, as before the first call, is the kernel's
// default.
func (s *Server) SetMTU(mtu int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mtu = mtu
}

// Attachments returns what is attached, sorted by ID. Before Run these are the records that New
// read; their pods may be gone.
func (s *Server) Attachments() []cni.Attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []cni.Attachment
	for _, id := range slices.Sorted(maps.Keys(s.attachments)) {
		if _, leaves := s.leaving[id]; !leaves {
			all = append(all, s.attachments[id])
		}
	}
	return all
}

// Handle adds another request to the socket. The pattern is as for http.ServeMux, and its path must
// start with /v1/. The handler gets requests of root only, and can read 64 KiB of a body.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Run serves until ctx ends, and then returns nil once the requests under way are answered or cut:
// an ADD that waits fails with "try again later". It replaces the socket file of a server that is
// no more. It must be called once only. Beside it run KeepHostEnds and, now and then, Reap.
func (s *Server) Run(ctx context.Context) error {
	s.beat()
	ctx, cancel := context.WithCancel(ctx)
	s.life = ctx
	s.background.Go(func() { s.beatUntil(ctx) })
	defer s.endBackground(cancel)
	listener, err := s.listen(ctx)
	if err != nil || listener == nil {
		return err
	}
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

func (s *Server) endBackground(cancel context.CancelFunc) {
	cancel()
	s.mu.Lock()
	s.isStopped = true
	s.mu.Unlock()
	s.background.Wait()
}
