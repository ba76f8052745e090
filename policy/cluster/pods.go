package cluster

import (
	"maps"
	"net/netip"
	"reflect"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// SetPod adds or updates a pod. A pod with the namespace and name of an older one (another UID)
// replaces it.
func (c *Cluster) SetPod(in policy.Pod) {
	if old := c.pods.named(in.Key()); old != nil && old.ID != in.ID {
		c.dropPod(old.ID)
	}
	// The same names, but one text in memory for all pods that are kept whole.
	in.ID.Namespace = c.namespace(in.ID.Namespace).Name
	if n, known := c.nodes.told[in.Node]; known {
		in.Node = n.Name
	}
	c.updatePod(in.ID, func(r *podRecord) {
		r.Pod, r.known, r.gone = in, true, false
		r.believed = c.nodes.standing.ofPod(&in)
	})
}

// DeletePod says that the pod's object is gone. An attached pod keeps its policy until its endpoint
// is deleted, but is nobody's peer.
func (c *Cluster) DeletePod(namespace, name string) {
	if r := c.pods.named(policy.Key{Namespace: namespace, Name: name}); r != nil {
		c.dropPod(r.ID)
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
		if len(r.endpoints) == 0 {
			r.endpoints = nil // as of others' pods, which are kept small
		}
	})
}

// updatePod changes one pod's record and brings the indexes, the sets and the endpoints in line,
// for the pod and for whoever it shares an address with.
func (c *Cluster) updatePod(p selector.Pod, mutate func(*podRecord)) {
	old := c.pods.find(p)
	if old == nil {
		old = c.pods.newRecord(p)
	}
	next := *old
	mutate(&next)
	if reflect.DeepEqual(*old, next) {
		return
	}
	n := old.number
	affected := map[selector.Number]struct{}{n: {}}
	c.pods.claims.claimants(old.addresses(), affected)
	c.pods.claims.claimants(next.addresses(), affected)

	for q := range affected {
		c.contribute(q, false)
	}
	c.pods.store(old, &next)
	if next.subject() {
		c.subjects.SetPod(n, p.Namespace, next.Labels)
	} else {
		c.subjects.DeletePod(n)
	}
	if next.live() {
		c.peers.SetPod(n, p.Namespace, next.Labels)
	} else {
		c.peers.DeletePod(n)
	}
	for q := range affected {
		c.contribute(q, true)
		c.markPod(q)
	}
}

// contribute puts the pod's members into every set that picks it, or takes them out.
func (c *Cluster) contribute(n selector.Number, in bool) {
	each := func(index *selector.Index, sets map[selector.Key]map[policy.SetID]struct{}) {
		for k := range index.Selectors(n) {
			for id := range sets[k] {
				set := c.sets[id]
				for _, m := range c.contribution(set, n) {
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
func (c *Cluster) contribution(set *setState, n selector.Number) []policy.Member {
	r := c.pods.records.get(n)
	addresses := c.pods.met
	if set.ID.Kind == policy.LocalPortSet {
		addresses = c.pods.governed
	}
	var out []policy.Member
	for _, a := range addresses(r) {
		if set.ID.Kind == policy.PodSet {
			out = append(out, policy.Member{First: a, Last: a})
			continue
		}
		for port := range r.Ports.All() {
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
	pods := map[selector.Number]struct{}{}
	for _, n := range changed {
		for _, p := range c.pods.byNode[n.Name] {
			pods[p] = struct{}{}
		}
	}
	if c.opts.PolicyOnly && len(changed) > 0 {
		c.pods.within(changed, pods)
	}
	for n := range pods {
		r := c.pods.records.get(n)
		p, had := r.ID, c.pods.own(r)
		c.updatePod(p, func(r *podRecord) { r.believed = c.nodes.standing.ofPod(&r.Pod) })
		for _, a := range had {
			if !c.pods.has(c.pods.find(p), a) {
				c.left[a] = struct{}{}
			}
		}
	}
}

// Pods are those that exist now.
func (c *Cluster) Pods() map[selector.Pod]struct{} {
	out := make(map[selector.Pod]struct{}, c.pods.current.size())
	for n := range c.pods.current.all() {
		out[c.pods.records.id(n)] = struct{}{}
	}
	return out
}

// PodCount is how many pods exist now.
func (c *Cluster) PodCount() int { return c.pods.current.size() }

// PodAddresses lists the addresses of the pod which has this namespace and name now, sorted.
func (c *Cluster) PodAddresses(namespace, name string) []netip.Addr {
	c.settle()
	return c.pods.own(c.pods.named(policy.Key{Namespace: namespace, Name: name}))
}

// PodClaims lists the addresses in the status of the pod which has this namespace and name now,
// believed or not, and the node that it says it is on. A pod of the host's network has none.
func (c *Cluster) PodClaims(namespace, name string) (said []netip.Addr, node string) {
	r := c.pods.named(policy.Key{Namespace: namespace, Name: name})
	switch {
	case r == nil:
		return nil, ""
	case r.HostNetwork:
		return nil, r.Node
	}
	return r.Addresses, r.Node
}
