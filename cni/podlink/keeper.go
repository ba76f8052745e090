package podlink

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/link"
)

// KeeperOptions say how host ends are looked after.
type KeeperOptions struct {
	Log       logr.Logger
	Tick      time.Duration // how often to look although nothing was told of; 1 s by default
	SysctlDir string        // /proc/sys/net by default; elsewhere if that is read-only
	NetNS     ns.NetNS      // nil: the namespace of the process
	// how long the plugin has for a new link before it is looked after; 1 s by default
	FreshFor time.Duration
}

// Keeper keeps the host ends of pods as they should be: their links, sysctls, addresses,
// neighbours, routes and shaping. Whatever is altered there by hand heals. It begins a second after
// a link appears, so as not to be in the way of the plugin, which makes the link and wires it;
// shaping, which the plugin has no part in, begins at once.
//
// The methods are safe for concurrent use; Run runs once.
type Keeper struct {
	options KeeperOptions
	loop    *link.Loop

	mu      sync.Mutex // of what follows
	inputs  *hostInputs
	watched map[int]bool // indexes of links that we look at
	wrong   []string
	count   uint64
	settled bool // whether the last pass found all links settled, and nothing to do

	// Of passes only.
	trackers  map[string]*tracker // by attachment ID
	lastAddrs []netip.Addr        // of the node
	lastErr   string
}

// NewKeeper makes one that does nothing until Run and Set are called.
func NewKeeper(o KeeperOptions) *Keeper {
	if o.FreshFor == 0 {
		o.FreshFor = time.Second
	}
	h := &Keeper{
		options: o, loop: link.NewLoop(o.NetNS, o.SysctlDir, o.Tick, time.Second, o.Log),
		trackers: map[string]*tracker{},
	}
	h.loop.Concerns, h.loop.Pass = h.concerns, h.pass
	return h
}

// Set says what should be: the pods that there are (those that another plugin wired are left out),
// the addresses that the node uses towards them, the first of each family, and the node's podCIDRs,
// whose unused addresses become unreachable. An attachment must be in it before its link is made,
// as routes of our protocol that belong to none are removed. Once Set returns nothing is done any
// more that only the last one asked for: a link that is set down after its attachment was left out
// stays down.
func (h *Keeper) Set(
	attachments []cni.Attachment, nodeAddrs []netip.Addr, podCIDRs []netip.Prefix,
) {
	next := &hostInputs{nodeAddrs: slices.Clone(nodeAddrs), podCIDRs: slices.Clone(podCIDRs)}
	for _, a := range attachments {
		if !a.PolicyOnly && a.Interface != "" {
			next.attachments = append(next.attachments, a)
		}
	}
	h.mu.Lock()
	same := h.inputs != nil && reflect.DeepEqual(*h.inputs, *next)
	if !same {
		h.inputs = next
	}
	h.mu.Unlock()
	if !same {
		h.loop.Wake()
	}
}

// ifStill calls f, unless other inputs were set meanwhile.
func (h *Keeper) ifStill(in *hostInputs, f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inputs != in {
		return false
	}
	f()
	return true
}

// Healed is how often a host end that was right has been put right since.
func (h *Keeper) Healed() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// Problems is what can't be put right, sorted; for people.
func (h *Keeper) Problems() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.wrong)
}

// Run keeps the state right until the context ends, and then leaves it as it is. Its error is about
// not being able to start.
func (h *Keeper) Run(ctx context.Context) error { return h.loop.Run(ctx) }

// pass compares and applies until nothing differs, on a thread in the node's network namespace. It
// logs an error when that is another than before.
func (h *Keeper) pass(k *link.Kernel) bool {
	h.mu.Lock()
	in := h.inputs
	h.mu.Unlock()
	if in == nil {
		return true
	}
	err := link.Converge(func() (settled bool, err error) { return h.round(k, in) })
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != h.lastErr && err != nil {
		h.loop.Log.Error(err, "Pods' links aren't as they should be")
	}
	h.lastErr = text
	return err == nil
}

// round looks, compares and applies once. It is settled if nothing differed, or another round can't
// help: with new inputs another pass is asked for.
func (h *Keeper) round(k *link.Kernel, in *hostInputs) (isSettled bool, err error) {
	seen, err := look(k, k.Look)
	if err != nil {
		return true, err
	}
	byID, byLink := h.observe(*in, k.Links(), time.Now())
	desired := desiredHost(*in, byID, k.Links(), seen.isLocal)
	actual, err := seen.hostEnds(desired, byLink)
	if err != nil {
		return true, err
	}
	shaping, err := seen.shaping(desired)
	if err != nil {
		return true, err
	}
	actual = append(actual, shaping...)
	ops := link.Diff(in.keepUnknown(desired, actual), actual, nil)
	if !h.ifStill(in, func() {}) {
		return true, nil
	}
	h.noteHealing(*in, byID, ops)
	if len(ops) == 0 {
		return true, nil
	}
	h.loop.Log.V(1).Info("Changing pods' links", "changes", link.Summary(ops))
	err = k.Apply(ops, func(op link.Op, change func()) bool {
		if removesLink(op) {
			change() // it takes long, and who wants the link back gets it back
			return true
		}
		return h.ifStill(in, change)
	})
	if !h.ifStill(in, func() {}) {
		return true, nil
	}
	return false, err
}

// observe says how far the link of each attachment has come, by ID and by the link's name.
func (h *Keeper) observe(
	in hostInputs, links map[string]link.Found, now time.Time,
) (byID, byLink map[string]phase) {
	macs := map[link.MAC]string{}
	for _, a := range in.attachments {
		macs[link.MAC(a.HostMAC())] = a.ID()
	}
	byID, byLink = map[string]phase{}, map[string]phase{}
	trackers := map[string]*tracker{}
	var wrong []string
	for _, a := range in.attachments {
		id := a.ID()
		t := h.trackers[id]
		if t == nil {
			t = &tracker{}
		}
		trackers[id] = t
		var found *link.Found
		if f, isThere := links[a.Interface]; isThere {
			found = &f
		}
		p := t.observe(a, found, macs, now, h.options.FreshFor)
		byID[id] = p
		if found != nil {
			byLink[a.Interface] = max(byLink[a.Interface], p)
		}
		if problem := t.problem(a, p, now); problem != "" {
			wrong = append(wrong, problem)
		}
	}
	slices.Sort(wrong)
	watched := map[int]bool{}
	for name, found := range links {
		if isOurs(name) {
			watched[found.Index] = true
		}
	}
	h.trackers = trackers
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watched, h.wrong = watched, wrong
	return byID, byLink
}

// noteHealing counts the links that were right after an earlier pass, and aren't now.
func (h *Keeper) noteHealing(in hostInputs, phases map[string]phase, ops []link.Op) {
	isNews := !slices.Equal(h.lastAddrs, in.nodeAddrs) // then it is we who want something else
	h.lastAddrs = in.nodeAddrs
	touched, isClean := map[string]bool{}, len(ops) == 0
	for _, op := range ops {
		touched[op.Device()] = true
	}
	var healed uint64
	var names []string
	for _, a := range in.attachments {
		t := h.trackers[a.ID()]
		differs := touched[a.Interface] || touched[shapeName(a.Interface)]
		if t.clean && differs && !isNews {
			healed++
			names = append(names, cni.PodLabel(a.PodNamespace, a.PodName))
		}
		t.clean = phases[a.ID()] == settled && !differs
		isClean = isClean && t.clean
	}
	if healed > 0 {
		h.loop.Log.Info("Somebody altered pods' links: putting them right", "pods", names,
			"changes", link.Summary(ops))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count += healed
	h.settled = isClean
}
