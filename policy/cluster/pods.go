package cluster

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"go4.org/netipx"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// podBook knows every pod, which of them are attached to this node, and which pods claim an
// address. Two pods can claim one for a while: a new pod may get it before the old one's object is
// gone.
type podBook struct {
	records map[selector.Pod]*podRecord
	// current is the pod that has a namespace and name now.
	current map[policy.Key]selector.Pod
	claims  map[netip.Addr][]selector.Pod
	// byNode are the known pods of each node.
	byNode map[string]map[selector.Pod]struct{}
}

// podRecord is one pod. It outlives its object while it is attached. Records are replaced, never
// modified.
type podRecord struct {
	policy.Pod
	// believed are those of the addresses in its status that can be its own.
	believed []netip.Addr
	// known: the object was seen; gone: it was deleted since.
	known, gone bool
	endpoints   map[string]policy.Endpoint
}

func newPodBook() podBook {
	return podBook{
		records: map[selector.Pod]*podRecord{},
		current: map[policy.Key]selector.Pod{},
		claims:  map[netip.Addr][]selector.Pod{},
		byNode:  map[string]map[selector.Pod]struct{}{},
	}
}

// live reports whether others may meet the pod as a peer.
func (r *podRecord) live() bool { return r.known && !r.gone && !r.Finished && !r.HostNetwork }

// subject reports whether policies select the pod on this node: from its attachment to its
// detachment, also when its object is already gone.
func (r *podRecord) subject() bool { return r.known && !r.HostNetwork && len(r.endpoints) > 0 }

// lookup returns a pod's record; for an unknown pod an empty one.
func (b *podBook) lookup(p selector.Pod) *podRecord {
	if r := b.records[p]; r != nil {
		return r
	}
	return &podRecord{Pod: policy.Pod{ID: p}}
}

// store replaces a pod's record and its claims.
func (b *podBook) store(next *podRecord) {
	p := next.ID
	old := b.lookup(p)
	b.file(p, old.Node, next.Node)
	for _, a := range old.addresses() {
		b.claims[a] = slices.DeleteFunc(b.claims[a], func(q selector.Pod) bool { return q == p })
		if len(b.claims[a]) == 0 {
			delete(b.claims, a)
		}
	}
	if len(next.endpoints) == 0 && (!next.known || next.gone) {
		b.file(p, next.Node, "")
		delete(b.records, p)
		return
	}
	b.records[p] = next
	for _, a := range next.addresses() {
		b.claims[a] = append(b.claims[a], p)
	}
}

// file notes that a pod went from one node to another; "" is none.
func (b *podBook) file(p selector.Pod, from, to string) {
	if from != "" && from != to {
		delete(b.byNode[from], p)
		if len(b.byNode[from]) == 0 {
			delete(b.byNode, from)
		}
	}
	if to == "" {
		return
	}
	if b.byNode[to] == nil {
		b.byNode[to] = map[selector.Pod]struct{}{}
	}
	b.byNode[to][p] = struct{}{}
}

// SetPod adds or updates a pod. A pod with the namespace and name of an older one (another UID)
// replaces it.
func (c *Cluster) SetPod(in policy.Pod) {
	name := policy.Key{Namespace: in.ID.Namespace, Name: in.ID.Name}
	if old, ok := c.pods.current[name]; ok && old != in.ID {
		c.dropPod(old)
	}
	c.pods.current[name] = in.ID
	c.updatePod(in.ID, func(r *podRecord) {
		r.Pod, r.known, r.gone = in, true, false
		r.believed = c.nodes.standing.ofPod(&in)
	})
}

// DeletePod says that the pod's object is gone. An attached pod keeps its policy until its endpoint
// is deleted, but is nobody's peer.
func (c *Cluster) DeletePod(namespace, name string) {
	key := policy.Key{Namespace: namespace, Name: name}
	if p, ok := c.pods.current[key]; ok {
		delete(c.pods.current, key)
		c.dropPod(p)
	}
}

func (c *Cluster) dropPod(p selector.Pod) {
	c.updatePod(p, func(r *podRecord) { r.gone = true })
}

// SetEndpoint adds or updates an attachment of a pod to this node. Nothing is enforced for it, and
// nothing passes, until the pod's object is known.
func (c *Cluster) SetEndpoint(e policy.Endpoint) {
	if old, ok := c.endpoints[e.ID]; ok && old.Pod != e.Pod {
		c.DeleteEndpoint(e.ID)
	}
	c.endpoints[e.ID] = e
	c.dirtyEndpoints[e.ID] = struct{}{}
	c.updatePod(e.Pod, func(r *podRecord) {
		r.endpoints = maps.Clone(r.endpoints)
		if r.endpoints == nil {
			r.endpoints = map[string]policy.Endpoint{}
		}
		r.endpoints[e.ID] = e
	})
}

// DeleteEndpoint forgets an attachment.
func (c *Cluster) DeleteEndpoint(id string) {
	e, ok := c.endpoints[id]
	if !ok {
		return
	}
	delete(c.endpoints, id)
	c.dirtyEndpoints[id] = struct{}{}
	c.updatePod(e.Pod, func(r *podRecord) {
		r.endpoints = maps.Clone(r.endpoints)
		delete(r.endpoints, id)
	})
}

// updatePod changes one pod's record and brings the indexes, the sets and the endpoints in line,
// for the pod and for whoever it shares an address with.
func (c *Cluster) updatePod(p selector.Pod, mutate func(*podRecord)) {
	old := c.pods.lookup(p)
	next := *old
	mutate(&next)
	if reflect.DeepEqual(*old, next) {
		return
	}
	affected := map[selector.Pod]struct{}{p: {}}
	c.pods.claimants(old.addresses(), affected)
	c.pods.claimants(next.addresses(), affected)

	for q := range affected {
		c.contribute(q, false)
	}
	c.pods.store(&next)
	if next.subject() {
		c.subjects.SetPod(p, next.Labels)
	} else {
		c.subjects.DeletePod(p)
	}
	if next.live() {
		c.peers.SetPod(p, next.Labels)
	} else {
		c.peers.DeletePod(p)
	}
	for q := range affected {
		c.contribute(q, true)
		c.markPod(q)
	}
}

// contribute puts the pod's members into every set that picks it, or takes them out.
func (c *Cluster) contribute(p selector.Pod, in bool) {
	each := func(index *selector.Index, sets map[selector.Key]map[policy.SetID]struct{}) {
		for k := range index.Selectors(p) {
			for id := range sets[k] {
				set := c.sets[id]
				for _, m := range c.contribution(set, p) {
					set.put(m, in)
				}
			}
		}
	}
	each(c.peers, c.setsBySelector)
	each(c.subjects, c.localBySelector)
}

// contribution lists the members that a pod, picked by the set, puts into it; one may be listed
// twice.
func (c *Cluster) contribution(set *setState, p selector.Pod) []policy.Member {
	addresses := c.pods.met
	if set.ID.Kind == policy.LocalPortSet {
		addresses = c.pods.governed
	}
	var out []policy.Member
	for _, a := range addresses(p) {
		if set.ID.Kind == policy.PodSet {
			out = append(out, policy.Member{First: a, Last: a})
			continue
		}
		for _, port := range c.pods.lookup(p).Ports {
			if containsPort(set.Ports, port.NamedPort) {
				m := policy.Member{First: a, Last: a, Protocol: port.Protocol, Port: port.Number}
				out = append(out, m)
			}
		}
	}
	return out
}

// reconsiderPods holds the addresses of pods against what is believed of nodes now, after these
// have changed: of the pods of those nodes and, where the addresses of pods say nothing of their
// node, of all that might be concerned.
func (c *Cluster) reconsiderPods(changed []policy.Node) {
	pods := map[selector.Pod]struct{}{}
	for _, n := range changed {
		maps.Copy(pods, c.pods.byNode[n.Name])
	}
	if c.opts.PolicyOnly {
		c.pods.within(changed, pods)
	}
	for p := range pods {
		had := c.pods.own(p)
		c.updatePod(p, func(r *podRecord) { r.believed = c.nodes.standing.ofPod(&r.Pod) })
		for _, a := range had {
			if !c.pods.has(p, a) {
				c.left[a] = struct{}{}
			}
		}
	}
}

// within adds to out the pods whose status has an address of these nodes, or in their pod CIDRs.
func (b *podBook) within(nodes []policy.Node, out map[selector.Pod]struct{}) {
	var all netipx.IPSetBuilder
	for _, n := range nodes {
		for a := range claimsOf(n) {
			all.Add(a)
		}
		for _, cidr := range n.PodCIDRs {
			all.AddPrefix(cidr)
		}
	}
	places, err := all.IPSet()
	if err != nil {
		return // only invalid prefixes fail
	}
	for p, r := range b.records {
		if slices.ContainsFunc(r.Addresses, places.Contains) {
			out[p] = struct{}{}
		}
	}
}

// PodNames are the pods that exist now.
func (c *Cluster) PodNames() map[policy.Key]struct{} {
	out := make(map[policy.Key]struct{}, len(c.pods.current))
	for name := range c.pods.current {
		out[name] = struct{}{}
	}
	return out
}

// PodAddresses lists the addresses of the pod which has this namespace and name now, sorted.
func (c *Cluster) PodAddresses(namespace, name string) []netip.Addr {
	c.settle()
	p, ok := c.pods.current[policy.Key{Namespace: namespace, Name: name}]
	if !ok {
		return nil
	}
	return c.pods.own(p)
}

// PodClaims lists the addresses in the status of the pod which has this namespace and name now,
// believed or not, and the node that it says it is on. A pod of the host's network has none.
func (c *Cluster) PodClaims(namespace, name string) (said []netip.Addr, node string) {
	r := c.pods.lookup(c.pods.current[policy.Key{Namespace: namespace, Name: name}])
	if r.HostNetwork {
		return nil, r.Node
	}
	return r.Addresses, r.Node
}
