package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/sluice-net/sluice/selector"
)

// podBook knows every pod, which of them are attached to this node, and which
// pods claim an address. Two pods can claim one for a while: a new pod may get
// it before the old one's object is gone.
type podBook struct {
	records map[selector.Pod]*podRecord
	// current is the pod that has a namespace and name now.
	current map[Key]selector.Pod
	claims  map[netip.Addr][]selector.Pod
}

// podRecord is one pod. It outlives its object while it is attached. Records
// are replaced, never modified.
type podRecord struct {
	Pod
	// known: the object was seen; gone: it was deleted since.
	known, gone bool
	endpoints   map[string]Endpoint
}

func newPodBook() podBook {
	return podBook{
		records: map[selector.Pod]*podRecord{},
		current: map[Key]selector.Pod{},
		claims:  map[netip.Addr][]selector.Pod{},
	}
}

// live reports whether others may meet the pod as a peer.
func (r *podRecord) live() bool { return r.known && !r.gone && !r.Finished && !r.HostNetwork }

// subject reports whether policies select the pod on this node: from its
// attachment to its detachment, also when its object is already gone.
func (r *podRecord) subject() bool { return r.known && !r.HostNetwork && len(r.endpoints) > 0 }

// addresses lists what the pod claims: its status while it lives, and its
// attachments as long as they exist.
func (r *podRecord) addresses() []netip.Addr {
	var out []netip.Addr
	if r.live() {
		out = append(out, r.Addresses...)
	}
	for _, e := range r.endpoints {
		out = append(out, e.Addresses...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func (r *podRecord) attachedTo(a netip.Addr) bool {
	for _, e := range r.endpoints {
		if slices.Contains(e.Addresses, a) {
			return true
		}
	}
	return false
}

// lookup returns a pod's record; for an unknown pod an empty one.
func (b *podBook) lookup(p selector.Pod) *podRecord {
	if r := b.records[p]; r != nil {
		return r
	}
	return &podRecord{Pod: Pod{ID: p}}
}

// owner returns the pod that an address belongs to. An attachment to this
// node decides; then a live pod wins over one that isn't, an attachment whose
// pod isn't known yet over one whose pod has come to its end, one that stays
// over one that ends, and the newer over the older.
func (b *podBook) owner(a netip.Addr) (selector.Pod, bool) {
	claims := b.claims[a]
	if len(claims) == 0 {
		return selector.Pod{}, false
	}
	return slices.MaxFunc(claims, func(p, q selector.Pod) int {
		x, y := b.records[p], b.records[q]
		return cmp.Or(
			compareBool(x.attachedTo(a), y.attachedTo(a)),
			compareBool(x.live(), y.live()),
			compareBool(!x.known, !y.known),
			compareBool(!x.Terminating, !y.Terminating),
			x.Created.Compare(y.Created),
			cmp.Compare(x.ID.Namespace, y.ID.Namespace),
			cmp.Compare(x.ID.Name, y.ID.Name),
			cmp.Compare(x.ID.UID, y.ID.UID),
		)
	}), true
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// owned lists the addresses that belong to the pod.
func (b *podBook) owned(p selector.Pod) []netip.Addr {
	return slices.DeleteFunc(b.lookup(p).addresses(), func(a netip.Addr) bool {
		o, _ := b.owner(a)
		return o != p
	})
}

// claimants adds to out every pod that claims one of the addresses.
func (b *podBook) claimants(addresses []netip.Addr, out map[selector.Pod]struct{}) {
	for _, a := range addresses {
		for _, p := range b.claims[a] {
			out[p] = struct{}{}
		}
	}
}

// store replaces a pod's record and its claims.
func (b *podBook) store(next *podRecord) {
	p := next.ID
	for _, a := range b.lookup(p).addresses() {
		b.claims[a] = slices.DeleteFunc(b.claims[a], func(q selector.Pod) bool { return q == p })
		if len(b.claims[a]) == 0 {
			delete(b.claims, a)
		}
	}
	if len(next.endpoints) == 0 && (!next.known || next.gone) {
		delete(b.records, p)
		return
	}
	b.records[p] = next
	for _, a := range next.addresses() {
		b.claims[a] = append(b.claims[a], p)
	}
}

// SetPod adds or updates a pod. A pod with the namespace and name of an older
// one (another UID) replaces it.
func (c *Cluster) SetPod(in Pod) {
	name := Key{in.ID.Namespace, in.ID.Name}
	if old, ok := c.pods.current[name]; ok && old != in.ID {
		c.dropPod(old)
	}
	c.pods.current[name] = in.ID
	c.updatePod(in.ID, func(r *podRecord) { r.Pod, r.known, r.gone = in, true, false })
}

// DeletePod says that the pod's object is gone. An attached pod keeps its
// policy until its endpoint is deleted, but is nobody's peer.
func (c *Cluster) DeletePod(namespace, name string) {
	key := Key{namespace, name}
	if p, ok := c.pods.current[key]; ok {
		delete(c.pods.current, key)
		c.dropPod(p)
	}
}

func (c *Cluster) dropPod(p selector.Pod) {
	c.updatePod(p, func(r *podRecord) { r.gone = true })
}

// SetEndpoint adds or updates an attachment of a pod to this node. Nothing is
// enforced for it, and nothing passes, until the pod's object is known.
func (c *Cluster) SetEndpoint(e Endpoint) {
	if old, ok := c.endpoints[e.ID]; ok && old.Pod != e.Pod {
		c.DeleteEndpoint(e.ID)
	}
	c.endpoints[e.ID] = e
	c.dirtyEndpoints[e.ID] = struct{}{}
	c.updatePod(e.Pod, func(r *podRecord) {
		r.endpoints = maps.Clone(r.endpoints)
		if r.endpoints == nil {
			r.endpoints = map[string]Endpoint{}
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

// updatePod changes one pod's record and brings the indexes, the sets and the
// endpoints in line, for the pod and for whoever it shares an address with.
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

// contribute puts the pod's members into every set that picks it, or takes
// them out.
func (c *Cluster) contribute(p selector.Pod, in bool) {
	each := func(index *selector.Index, sets map[selector.Key]map[SetID]struct{}) {
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

// contribution lists the members that a pod, picked by the set, puts into it;
// one may be listed twice.
func (c *Cluster) contribution(set *setState, p selector.Pod) []Member {
	var out []Member
	for _, a := range c.pods.owned(p) {
		if set.ID.Kind == PodSet {
			out = append(out, Member{First: a, Last: a})
			continue
		}
		for _, port := range c.pods.lookup(p).Ports {
			if containsPort(set.Ports, port.NamedPort) {
				out = append(out, Member{First: a, Last: a, Protocol: port.Protocol, Port: port.Number})
			}
		}
	}
	return out
}

// PodAddresses lists the addresses that belong to the pod which has this
// namespace and name now, sorted.
func (c *Cluster) PodAddresses(namespace, name string) []netip.Addr {
	p, ok := c.pods.current[Key{namespace, name}]
	if !ok {
		return nil
	}
	return c.pods.owned(p)
}
