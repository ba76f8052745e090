package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"
)

// Options is what a Reconciler needs to know about its surroundings.
type Options struct {
	NetNS     ns.NetNS      // the node's; nil: that of the process. The caller keeps it open while Run runs
	SysctlDir string        // where /proc/sys/net is writable; empty: there
	Tick      time.Duration // how often to look without a cause; 0: 30 s
	Log       logr.Logger
	OnStatus  func(Status) // called after each change of the status, by Run's goroutine; may be nil
}

// Status is what came of the last pass. While the node itself can't take part, all but the first three fields are as they were before:
// what is in the kernel stays there. Own and Config are always of the last pass.
type Status struct {
	Ready   bool         // everything is as desired
	Reason  string       // why it isn't
	Config  Config       // under which that is so
	MTU     int          // of pods, bytes; 0 if not known yet
	Tunnel  string       // the tunnel device; empty without one
	Device  string       // the underlay's link; empty: whichever the routes say
	Local   netip.Addr   // the node's address on the underlay
	Own     []netip.Addr // at which the node itself is, in order: not the addresses of Services, whose links lead nowhere
	Peers   []Peer
	Skipped []Skipped
	Changes uint64 // how many things were added, changed or removed since the start, whatever the reason

	ReversePathFilters map[string]string // rp_filter by link, and under "all"; reported, never changed

	// NotForwarding is the links that don't forward IPv4, although packets for pods come in by them: the underlay's, and those of
	// default routes. They aren't ours: reported, never changed.
	NotForwarding []string
}

// Reconciler keeps a node's kernel in the desired state. Its methods are safe for concurrent use; Run runs once.
type Reconciler struct {
	options Options
	wake    chan struct{} // holds at most one: something may differ

	mu     sync.Mutex
	inputs *inputs // nil before the first Set
	status Status

	tunnelIndex atomic.Int64          // of the desired tunnel device; 0: none yet
	uplinks     atomic.Pointer[[]int] // indices of the links that NotForwarding may name

	// endpoints is other nodes' addresses, in order, where routes say how to reach them; nil elsewhere.
	endpoints atomic.Pointer[[]netip.Addr]
}

type inputs struct {
	own    string
	nodes  []Node
	config Config
}

// New makes a Reconciler that does nothing until Run and Set are called.
func New(o Options) *Reconciler {
	if o.SysctlDir == "" {
		o.SysctlDir = "/proc/sys/net"
	}
	if o.Tick == 0 {
		o.Tick = 30 * time.Second
	}
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	return &Reconciler{options: o, wake: make(chan struct{}, 1), status: Status{Reason: "no Nodes are known yet"}}
}

// Set says what the node named own is to be connected to. Nodes includes it. Nothing is changed in the kernel before Set returns;
// it doesn't keep the slice, but what the Nodes hold.
func (r *Reconciler) Set(own string, nodes []Node, c Config) {
	next := &inputs{own: own, nodes: slices.Clone(nodes), config: c}
	r.mu.Lock()
	same := r.inputs != nil && reflect.DeepEqual(*r.inputs, *next)
	r.inputs = next
	r.mu.Unlock()
	if !same {
		r.poke()
	}
}

// Status is that of the last pass.
func (r *Reconciler) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// poke asks for a pass. Asking again before it starts changes nothing.
func (r *Reconciler) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// do runs f on a thread in the node's network namespace.
func (r *Reconciler) do(f func() error) error {
	if r.options.NetNS == nil {
		return f()
	}
	return r.options.NetNS.Do(func(ns.NetNS) error { return f() })
}

// Run keeps the state right until the context ends, and then leaves it as it is: pods go on talking without us. Its error is about
// not being able to start.
func (r *Reconciler) Run(ctx context.Context) error {
	var k *kernel
	if err := r.do(func() (err error) { k, err = openKernel(); return err }); err != nil {
		return err
	}
	defer k.Close()
	stop, err := r.watch()
	if err != nil {
		return err
	}
	defer stop()

	const (
		gap        = 50 * time.Millisecond // between passes, however much is going on
		firstRetry = 200 * time.Millisecond
	)
	tick := time.NewTicker(r.options.Tick)
	defer tick.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	wait := firstRetry
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-tick.C:
		case <-retry.C:
		}
		if r.pass(k) {
			retry.Stop()
			wait = firstRetry
		} else {
			retry.Reset(wait)
			wait = min(2*wait, r.options.Tick)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(gap):
		}
	}
}

// pass compares and applies until nothing differs, and notes what came of it. It is false if that is to be tried again soon.
func (r *Reconciler) pass(k *kernel) bool {
	r.mu.Lock()
	in, old := r.inputs, r.status
	r.mu.Unlock()
	if in == nil {
		return true
	}
	status := Status{Changes: old.Changes, Own: old.Own}
	var plan Plan
	err := r.do(func() (err error) { plan, err = r.converge(k, *in, &status); return err })
	if plan.MTU != 0 {
		status.MTU, status.Device, status.Local = plan.MTU, plan.Device, plan.Local
		status.Peers, status.Skipped = plan.Peers, plan.Skipped
		if in.config.Backend == VXLAN {
			status.Tunnel = in.config.Device()
		}
	} else { // the node can't take part: what is there goes on
		changes, own := status.Changes, status.Own
		status = old
		status.Changes, status.Own = changes, own
	}
	status.Ready, status.Reason, status.Config = err == nil, "", in.config
	if err != nil {
		status.Reason = err.Error()
	}
	r.note(old, status)
	return err == nil
}

// note stores and tells a changed status.
func (r *Reconciler) note(old, status Status) {
	if reflect.DeepEqual(old, status) {
		return
	}
	r.mu.Lock()
	r.status = status
	r.mu.Unlock()
	if old.Reason != status.Reason || old.Ready != status.Ready {
		r.options.Log.Info("Overlay", "ready", status.Ready, "reason", status.Reason, "mtu", status.MTU)
	}
	for _, s := range status.Skipped { // whoever gets the status tells of those that last
		if !slices.Contains(old.Skipped, s) {
			r.options.Log.V(1).Info("Skipped a node", "node", s.Node, "reason", s.Reason)
		}
	}
	if r.options.OnStatus != nil {
		r.options.OnStatus(status)
	}
}

// converge reads, compares and applies until nothing differs. More than one round is normal: a device that comes up, or gets another
// MAC, loses what was on it.
func (r *Reconciler) converge(k *kernel, in inputs, status *Status) (Plan, error) {
	const rounds = 5
	var plan Plan
	var err error
	for range rounds {
		var settled bool
		plan, settled, err = r.round(k, in, status)
		if settled {
			break
		}
		if err == nil {
			err = errors.New("it doesn't stay as set: somebody else changes it")
		}
	}
	return plan, err
}

// round is settled if nothing differed, or another round can't help.
func (r *Reconciler) round(k *kernel, in inputs, status *Status) (plan Plan, settled bool, err error) {
	links, err := k.readLinks()
	if err != nil {
		return Plan{}, true, err
	}
	r.noteTunnel(k, in.config.Device()) // before reading what is on it: later changes are told of
	if i := slices.IndexFunc(in.nodes, func(n Node) bool { return n.Name == in.own }); i >= 0 {
		status.Own = ownAddresses(in.nodes[i], links)
	}
	if links, err = r.addWays(k, in, links); err != nil {
		return Plan{}, true, err
	}
	plan, err = Desired(in.own, in.nodes, in.config, links)
	if err != nil {
		return Plan{}, true, err
	}
	errSysctl := r.setSysctls(k, in.config, plan.Uplinks)
	actual, err := k.read()
	if err != nil {
		return plan, true, err
	}
	status.ReversePathFilters = reversePathFilters(r.options.SysctlDir, plan.Uplinks...)
	if status.NotForwarding, err = r.notForwarding(k, in.config, plan.Uplinks); err != nil {
		return plan, true, err
	}
	ops := Diff(plan.State, actual)
	if len(ops) == 0 {
		return plan, true, errSysctl
	}
	status.Changes += uint64(len(ops))
	r.options.Log.Info("Changing the node's links and routes", "changes", summary(ops))
	return plan, false, errors.Join(errSysctl, k.apply(ops))
}

func (r *Reconciler) setSysctls(k *kernel, c Config, underlay []string) error {
	var uplinks []string
	if c.IPv6Network.IsValid() {
		var err error
		if uplinks, err = k.advertisedLinks(underlay); err != nil {
			return err
		}
	}
	written, err := setSysctls(r.options.SysctlDir, sysctls(c, uplinks))
	if len(written) > 0 {
		r.options.Log.Info("Set sysctls", "sysctls", written)
	}
	return err
}

// notForwarding is the links of the status, and has changes of them noticed.
func (r *Reconciler) notForwarding(k *kernel, c Config, underlay []string) ([]string, error) {
	if !c.Network.IsValid() {
		r.uplinks.Store(nil)
		return nil, nil
	}
	links, err := k.uplinks(underlay)
	if err != nil {
		return nil, err
	}
	var indices []int
	for _, name := range links {
		if index, err := k.index(name); err == nil {
			indices = append(indices, index)
		}
	}
	r.uplinks.Store(&indices) // before reading: later changes are told of
	return notForwarding(r.options.SysctlDir, links), nil
}

func (r *Reconciler) noteTunnel(k *kernel, name string) {
	index, err := k.index(name)
	if err != nil {
		index = 0
	}
	r.tunnelIndex.Store(int64(index))
}

// summary is the first few changes as commands.
func summary(ops []Op) string {
	const most = 10
	var lines []string
	for _, op := range ops[:min(len(ops), most)] {
		lines = append(lines, op.String())
	}
	if more := len(ops) - most; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}

// Remove takes everything away that a Reconciler has ever put into the network namespace of the options. Sysctls stay: others may
// count on them by now. No Reconciler may run.
func Remove(o Options) error {
	return New(o).do(func() error {
		k, err := openKernel()
		if err != nil {
			return err
		}
		defer k.Close()
		if _, err := k.readLinks(); err != nil {
			return err
		}
		actual, err := k.read()
		if err != nil {
			return err
		}
		return k.apply(Diff(State{}, actual))
	})
}
