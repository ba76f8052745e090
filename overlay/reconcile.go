package overlay

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/link"
)

// Options is what a Reconciler needs to know about its surroundings.
type Options struct {
	// the node's; nil: that of the process. The caller keeps it open while Run runs
	NetNS     ns.NetNS
	SysctlDir string        // where /proc/sys/net is writable; empty: there
	Tick      time.Duration // how often to look without a cause; 0: 30 s
	Log       logr.Logger
	// called after each change of the status, by one goroutine at a time; may be nil
	OnStatus func(Status)
}

// Status is what came of the last pass. While the node itself can't take part, all but the first
// three fields are as they were before: what is in the kernel stays there. Own and Config are
// always of the last pass.
type Status struct {
	Ready  bool       // everything is as desired
	Reason string     // why it isn't
	Config Config     // under which that is so
	MTU    int        // of pods, bytes; 0 if not known yet
	Tunnel string     // the tunnel device; empty without one
	Device string     // the underlay's link; empty: whichever the routes say
	Local  netip.Addr // the node's address on the underlay
	// at which the node itself is, in order: not the addresses of Services, whose links lead
	// nowhere
	Own     []netip.Addr
	Peers   []Peer
	Skipped []Skipped
	// how many things were added, changed or removed since the start, whatever the reason
	Changes uint64

	// rp_filter by link, and under "all"; reported, never changed
	ReversePathFilters map[string]string

	// NotForwarding is the links that don't forward IPv4, although packets for pods come in by
	// them: the underlay's, and those of default routes. They aren't ours: reported, never changed.
	NotForwarding []string
}

// Reconciler keeps a node's kernel in the desired state. Its methods are safe for concurrent use;
// Run runs once.
type Reconciler struct {
	options Options
	loop    *link.Loop

	mu     sync.Mutex
	inputs *inputs // nil before the first Set
	status Status

	tunnelIndex atomic.Int64          // of the desired tunnel device; 0: none yet
	uplinks     atomic.Pointer[[]int] // indices of the links that NotForwarding may name

	// endpoints is other nodes' addresses, in order, where routes say how to reach them; nil
	// elsewhere.
	endpoints atomic.Pointer[[]netip.Addr]
}

type inputs struct {
	own    string
	nodes  []Node
	config Config
}

// New makes a Reconciler that does nothing until Run and Set are called.
func New(o Options) *Reconciler {
	const defaultTick = 30 * time.Second
	r := &Reconciler{
		options: o, loop: link.NewLoop(o.NetNS, o.SysctlDir, o.Tick, defaultTick, o.Log),
		status: Status{Reason: "no Nodes are known yet"},
	}
	r.loop.Concerns, r.loop.Pass = r.concerns, r.pass
	return r
}

// Set says what the node named own is to be connected to. Nodes includes it. Nothing is changed in
// the kernel before Set returns; it doesn't keep the slice, but what the Nodes hold.
func (r *Reconciler) Set(own string, nodes []Node, c Config) {
	next := &inputs{own: own, nodes: slices.Clone(nodes), config: c}
	r.mu.Lock()
	same := r.inputs != nil && reflect.DeepEqual(*r.inputs, *next)
	r.inputs = next
	r.mu.Unlock()
	if !same {
		r.loop.Wake()
	}
}

// Status is that of the last pass.
func (r *Reconciler) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run keeps the state right until the context ends, and then leaves it as it is: pods go on talking
// without us. Its error is about not being able to start.
func (r *Reconciler) Run(ctx context.Context) error { return r.loop.Run(ctx) }

// pass compares and applies until nothing differs, and notes what came of it. It is false if that
// is to be tried again soon.
func (r *Reconciler) pass(k *link.Kernel) bool {
	r.mu.Lock()
	in, old := r.inputs, r.status
	r.mu.Unlock()
	if in == nil {
		return true
	}
	status := Status{Changes: old.Changes, Own: old.Own}
	plan, err := r.converge(k, *in, &status)
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
		r.loop.Log.Info("Overlay", "ready", status.Ready, "reason", status.Reason, "mtu",
			status.MTU)
	}
	for _, s := range status.Skipped { // whoever gets the status tells of those that last
		if !slices.Contains(old.Skipped, s) {
			r.loop.Log.V(1).Info("Skipped a node", "node", s.Node, "reason", s.Reason)
		}
	}
	if r.options.OnStatus != nil {
		r.options.OnStatus(status)
	}
}

// converge reads, compares and applies until nothing differs. More than one round is normal: a
// device that comes up, or gets another MAC, loses what was on it.
func (r *Reconciler) converge(k *link.Kernel, in inputs, status *Status) (plan Plan, err error) {
	err = link.Converge(func() (settled bool, err error) {
		plan, settled, err = r.round(k, in, status)
		return settled, err
	})
	return plan, err
}

// round is settled if nothing differed, or another round can't help.
func (r *Reconciler) round(k *link.Kernel, in inputs,
	status *Status) (plan Plan, settled bool, err error) {
	seen, err := r.look(k, in.config.Device())
	if err != nil {
		return Plan{}, true, err
	}
	links := seen.links()
	if i := slices.IndexFunc(in.nodes, func(n Node) bool { return n.Name == in.own }); i >= 0 {
		status.Own = ownAddresses(in.nodes[i], links)
	}
	plan, err = r.plan(&seen, in, links)
	if err != nil {
		return Plan{}, true, err
	}
	errSysctl := r.setSysctls(seen, in.config, plan.Uplinks)
	actual, err := seen.state()
	if err != nil {
		return plan, true, err
	}
	status.ReversePathFilters = reversePathFilters(r.loop.SysctlDir, plan.Uplinks...)
	status.NotForwarding = r.notForwarding(seen, in.config, plan.Uplinks)
	ops := Diff(plan.State, actual)
	if len(ops) == 0 {
		return plan, true, errSysctl
	}
	status.Changes += uint64(len(ops))
	r.loop.Log.Info("Changing the node's links and routes", "changes", link.Summary(ops))
	return plan, false, errors.Join(errSysctl, k.Apply(ops, nil))
}

// plan reads the routes, and says what is desired with these links.
func (r *Reconciler) plan(seen *sight, in inputs, links []Link) (Plan, error) {
	local, endpoints := r.noteEndpoints(in, links)
	if err := seen.readRoutes(); err != nil {
		return Plan{}, err
	}
	links, err := seen.addWays(links, local, endpoints)
	if err != nil {
		return Plan{}, err
	}
	return Desired(in.own, in.nodes, in.config, links)
}

func (r *Reconciler) setSysctls(s sight, c Config, underlay []string) error {
	var uplinks []string
	if c.IPv6Network.IsValid() {
		uplinks = s.advertisedLinks(underlay)
	}
	written, err := setSysctls(r.loop.SysctlDir, sysctls(c, uplinks))
	if len(written) > 0 {
		r.loop.Log.Info("Set sysctls", "sysctls", written)
	}
	return err
}

// notForwarding is the links of the status, and has changes of them noticed.
func (r *Reconciler) notForwarding(s sight, c Config, underlay []string) []string {
	if !c.Network.IsValid() {
		r.uplinks.Store(nil)
		return nil
	}
	links := s.uplinks(underlay)
	var indices []int
	for _, name := range links {
		indices = append(indices, s.kernel.Links()[name].Index)
	}
	r.uplinks.Store(&indices) // before reading: later changes are told of
	return notForwarding(r.loop.SysctlDir, links)
}

// Remove takes everything away that a Reconciler has ever put into the network namespace of the
// options. Sysctls stay: others may count on them by now. No Reconciler may run.
func Remove(o Options) error {
	r := New(o)
	k, err := r.loop.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	return link.In(o.NetNS, func() error {
		seen, err := r.look(k, "")
		if err != nil {
			return err
		}
		if err := seen.readRoutes(); err != nil {
			return err
		}
		actual, err := seen.state()
		if err != nil {
			return err
		}
		return k.Apply(Diff(nil, actual), nil)
	})
}
