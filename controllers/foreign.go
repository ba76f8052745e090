package controllers

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// ForeignPods puts pods under policy that another CNI plugin wired. They are
// known by the addresses in their status, and where our plugin is chained
// behind the other one, by an attachment before that. Without Enabled, this
// node's pods are all ours, and those of other nodes are the only ones whose
// connections it has forgotten.
type ForeignPods struct {
	// Enabled is for nodes whose pods another plugin wires.
	Enabled bool
	// Guard drops what comes from or goes to addresses of the node's podCIDRs
	// that aren't a known pod's.
	Guard bool
	// Forget deletes what connection tracking remembers of addresses that pods
	// have left: established connections pass, so the next pod would inherit
	// those of the last one. Nil: it stays.
	Forget func(addrs []netip.Addr) error

	held map[string]foreignPod // by endpoint

	mu   sync.Mutex
	left map[netip.Addr]struct{} // to be forgotten
	wake chan struct{}           // holds a token while there may be some
}

// forgetEvery is how often, at most, addresses are forgotten where they rest
// before the next pod gets them: a walk through a large table takes 0.1 s, and
// finds one address as fast as a thousand.
const forgetEvery = time.Second

// foreignPod is who has an endpoint's addresses.
type foreignPod struct {
	pod       selector.Pod
	addresses []netip.Addr
}

// linkScope drops what only a bridge forwards: to multicast, broadcast and
// link-local addresses, which every pod of the bridge hears or has, and from
// the latter. No pod is known by them, so nothing else would judge it.
func linkScope(d policy.Direction) []nft.Rule {
	const what = "on a bridge, to or from no known pod"
	drop := func(match nft.Statement) nft.Rule { return rule(what, match, nft.Count{}, do(nft.Drop)) }
	if d == policy.Egress {
		return []nft.Rule{drop(nft.MatchPrefix{Field: nft.SrcAddr6, Prefix: linkLocal6})}
	}
	return []nft.Rule{
		drop(nft.MatchPrefix{Field: nft.DstAddr4, Prefix: multicast4}),
		drop(nft.MatchAddr{Field: nft.DstAddr4, Addr: netip.AddrFrom4([4]byte{255, 255, 255, 255})}),
		drop(nft.MatchPrefix{Field: nft.DstAddr6, Prefix: multicast6}),
		drop(nft.MatchPrefix{Field: nft.DstAddr6, Prefix: linkLocal6}),
	}
}

// foreignID is the ID of a pod's endpoint, one for each name: a pod that
// takes the place of another takes its endpoint as well.
func foreignID(namespace, name string) string { return "status/" + namespace + "/" + name }

// set puts a pod of this node under policy, or ends that.
func (f *ForeignPods) set(c *policy.Cluster, p *policy.Pod) {
	if !f.Enabled {
		return
	}
	id := foreignID(p.ID.Namespace, p.ID.Name)
	if p.HostNetwork || p.Finished || len(p.Addresses) == 0 {
		c.DeleteEndpoint(id)
		f.hold(id, foreignPod{})
		return
	}
	c.SetEndpoint(policy.Endpoint{ID: id, Pod: p.ID, Addresses: p.Addresses})
	f.hold(id, foreignPod{p.ID, p.Addresses})
}

func (f *ForeignPods) forget(c *policy.Cluster, key client.ObjectKey) {
	if f.Enabled {
		id := foreignID(key.Namespace, key.Name)
		c.DeleteEndpoint(id)
		f.hold(id, foreignPod{})
	}
}

// hold notes who has an endpoint's addresses now, and has those forgotten
// that the last one had. Like set and forget, it is called within
// Enforcer.Update.
func (f *ForeignPods) hold(id string, now foreignPod) {
	was := f.held[id]
	if f.held == nil {
		f.held = map[string]foreignPod{}
	}
	f.held[id] = now
	if len(now.addresses) == 0 {
		delete(f.held, id)
	}
	f.leave(slices.DeleteFunc(slices.Clone(was.addresses), func(a netip.Addr) bool {
		return was.pod == now.pod && slices.Contains(now.addresses, a)
	}))
}

// gone has the addresses forgotten that a pod, of whatever node, had before and
// hasn't now: the next pod with one of them may go on in what its peers here
// have allowed the last one. The time that an address rests is for that.
func (f *ForeignPods) gone(before, now []netip.Addr) {
	f.leave(slices.DeleteFunc(before, func(a netip.Addr) bool { return slices.Contains(now, a) }))
}

// leave hands addresses to run.
func (f *ForeignPods) leave(addrs []netip.Addr) {
	if len(addrs) == 0 || f.Forget == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == nil {
		f.left = map[netip.Addr]struct{}{}
	}
	for _, a := range addrs {
		f.left[a] = struct{}{}
	}
	select {
	case f.waker() <- struct{}{}:
	default:
	}
}

// waker makes the channel when it is needed first. The caller holds mu.
func (f *ForeignPods) waker() chan struct{} {
	if f.wake == nil {
		f.wake = make(chan struct{}, 1)
	}
	return f.wake
}

// take returns the addresses that are to be forgotten, sorted.
func (f *ForeignPods) take() []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	addrs := slices.SortedFunc(maps.Keys(f.left), netip.Addr.Compare)
	clear(f.left)
	return addrs
}

// run forgets, until ctx ends, the connections of addresses that pods have
// left, each once the kernel no longer takes them for theirs.
func (f *ForeignPods) run(ctx context.Context, e *Enforcer) {
	f.mu.Lock()
	wake := f.waker()
	f.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		addrs := f.take()
		if err := e.await(ctx, func() error { return nil }); err != nil {
			return // the agent ends
		}
		if err := f.Forget(addrs); err != nil {
			e.log.Error(err, "The next pods with these addresses may inherit connections; trying again", "addresses", addrs)
			pause(ctx, time.Second)
			f.leave(addrs)
			continue
		}
		if !f.Enabled {
			pause(ctx, forgetEvery)
		}
	}
}
