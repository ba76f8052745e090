package podlink

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/cni"
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
// The methods are safe for concurrent use; run runs once.
type Keeper struct {
	options KeeperOptions
	wake    chan struct{} // holds at most one: something may differ

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

// NewKeeper makes one that does nothing until run and set are called.
func NewKeeper(o KeeperOptions) *Keeper {
	if o.SysctlDir == "" {
		o.SysctlDir = procSys
	}
	if o.FreshFor == 0 {
		o.FreshFor = time.Second
	}
	if o.Tick == 0 {
		o.Tick = time.Second
	}
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	return &Keeper{options: o, wake: make(chan struct{}, 1), trackers: map[string]*tracker{}}
}

// Set says what should be: the pods that there are (those that another plugin wired are left out),
// the addresses that the node uses towards them, the first of each family, and the node's podCIDRs,
// whose unused addresses become unreachable. An attachment must be in it before its link is made,
// as routes of our protocol that belong to none are removed. Once set returns nothing is done any
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
		h.poke()
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

// poke asks for a pass. Asking again before it starts changes nothing.
func (h *Keeper) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// do runs f on a thread in the node's network namespace.
func (h *Keeper) do(f func() error) error {
	if h.options.NetNS == nil {
		return f()
	}
	return h.options.NetNS.Do(func(ns.NetNS) error { return f() })
}

// Run keeps the state right until the context ends, and then leaves it as it is. Its error is about
// not being able to start.
func (h *Keeper) Run(ctx context.Context) error {
	var s space
	if err := h.do(func() (err error) { s, err = openSpace(); return err }); err != nil {
		return err
	}
	defer s.Close()
	stop, err := h.watch()
	if err != nil {
		return err
	}
	defer stop()
	const gap = 50 * time.Millisecond // between passes, however much is going on
	rest := time.NewTimer(0)
	defer rest.Stop()
	tick := time.NewTicker(h.options.Tick)
	defer tick.Stop()
	h.poke()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-rest.C:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		case <-tick.C:
		}
		h.pass(s)
		rest.Reset(gap)
	}
}

// pass compares and applies until nothing differs, and notes what came of it.
func (h *Keeper) pass(s space) {
	h.mu.Lock()
	in := h.inputs
	h.mu.Unlock()
	if in == nil {
		return
	}
	err := h.do(func() error { return h.converge(s, in) })
	h.tell(err)
}

// tell logs an error when it is another than before.
func (h *Keeper) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != h.lastErr && err != nil {
		h.options.Log.Error(err, "Pods' links aren't as they should be")
	}
	h.lastErr = text
}

// converge needs more than one round where a change takes others along: a link that was down has
// lost its routes.
func (h *Keeper) converge(s space, in *hostInputs) error {
	const rounds = 4
	var err error
	for range rounds {
		var same bool
		if same, err = h.round(s, in); same {
			return err
		}
		if !h.ifStill(in, func() {}) {
			return nil // a pass with the new inputs is asked for
		}
		if err == nil {
			err = errors.New("they don't stay as set: somebody else changes them")
		}
	}
	return err
}

// round looks, compares and applies once. It is the same if nothing differed, or another round
// can't help.
func (h *Keeper) round(s space, in *hostInputs) (same bool, err error) {
	routes, err := s.ourRoutes()
	if err != nil {
		return true, err
	}
	links, err := podLinksHere()
	if err != nil {
		return true, err
	}
	byID, byLink := h.observe(*in, links, time.Now())
	addresses, err := s.allAddresses()
	if err != nil {
		return true, err
	}
	desired := desiredHost(*in, byID, links, localOf(addresses))
	actual, err := s.actualHost(desired, byLink, links, addresses, routes)
	if err != nil {
		return true, err
	}
	in.keepUnknown(&desired, actual)
	ops := diffHost(desired, actual)
	if !h.ifStill(in, func() {}) {
		return false, nil
	}
	h.noteHealing(*in, byID, ops)
	if len(ops) == 0 {
		return true, nil
	}
	h.options.Log.V(1).Info("Changing pods' links", "changes", hostSummary(ops))
	k := hostKernel{space: s, sysctlDir: h.options.SysctlDir, links: links}
	k.shaping = trafficControl{&k}
	return false, k.apply(ops, func(f func()) bool { return h.ifStill(in, f) })
}

// observe says how far the link of each attachment has come, by ID and by the link's name.
func (h *Keeper) observe(
	in hostInputs, links map[string]podLink, now time.Time,
) (byID, byLink map[string]phase) {
	macs := map[macAddr]string{}
	for _, a := range in.attachments {
		macs[macAddr(a.HostMAC())] = a.ID()
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
		var link *podLink
		if l, found := links[a.Interface]; found {
			link = &l
		}
		p := t.observe(a, link, macs, now, h.options.FreshFor)
		byID[id] = p
		if link != nil {
			byLink[a.Interface] = max(byLink[a.Interface], p)
		}
		if problem := t.problem(a, p, now); problem != "" {
			wrong = append(wrong, problem)
		}
	}
	slices.Sort(wrong)
	watched := map[int]bool{}
	for _, link := range links {
		watched[link.index] = true
	}
	h.trackers = trackers
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watched, h.wrong = watched, wrong
	return byID, byLink
}

// noteHealing counts the links that were right after an earlier pass, and aren't now.
func (h *Keeper) noteHealing(in hostInputs, phases map[string]phase, ops []hostOp) {
	isNews := !slices.Equal(h.lastAddrs, in.nodeAddrs) // then it is we who want something else
	h.lastAddrs = in.nodeAddrs
	touched, isClean := map[string]bool{}, len(ops) == 0
	for _, op := range ops {
		touched[op.link] = true
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
		h.options.Log.Info("Somebody altered pods' links: putting them right", "pods", names,
			"changes", hostSummary(ops))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count += healed
	h.settled = isClean
}

// hostSummary is the first few changes as commands.
func hostSummary(ops []hostOp) string {
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
