package cluster

import (
	"net/netip"
	"slices"

	"go4.org/netipx"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// podBook knows every pod, which of them are attached to this node, and which pods claim an
// address. Pods are known by numbers in it: a cluster has many, and what names them is long.
type podBook struct {
	records *shelf
	free    []selector.Number
	// current are the pods whose objects exist; former the others, which are attached here.
	current hashIndex[policy.Key, selector.Number]
	former  map[selector.Pod]selector.Number
	claims  claimBook
	labels  *labelBook
	// byNode are the known pods of each node, in no order.
	byNode map[string][]selector.Number
}

// podRecord is one pod. It outlives its object while it is attached. Records are replaced, never
// modified; those of one number are of one pod.
type podRecord struct {
	policy.Pod
	// believed are those of the addresses in its status that can be its own.
	believed  []netip.Addr
	endpoints map[string]policy.Endpoint
	number    selector.Number
	// known: the object was seen; gone: it was deleted since.
	known, gone bool
}

func newPodBook() podBook {
	records := newShelf()
	return podBook{
		records: records,
		current: newHashIndex(records.key),
		former:  map[selector.Pod]selector.Number{},
		claims:  newClaimBook(records),
		labels:  newLabelBook(),
		byNode:  map[string][]selector.Number{},
	}
}

// isThat reports whether two records are of one pod. The other may be nil.
func (r *podRecord) isThat(other *podRecord) bool {
	return other != nil && r.number == other.number
}

// exists reports whether the pod's object does.
func (r *podRecord) exists() bool { return r.known && !r.gone }

// live reports whether others may meet the pod as a peer.
func (r *podRecord) live() bool { return r.exists() && !r.Finished && !r.HostNetwork }

// subject reports whether policies select the pod on this node: from its attachment to its
// detachment, also when its object is already gone.
func (r *podRecord) subject() bool {
	return r != nil && r.known && !r.HostNetwork && len(r.endpoints) > 0
}

// find returns the record of a pod, nil if it isn't known.
func (b *podBook) find(p selector.Pod) *podRecord {
	if r := b.named(policy.Key{Namespace: p.Namespace, Name: p.Name}); r != nil && r.ID == p {
		return r
	}
	if n, ok := b.former[p]; ok {
		return b.records.get(n)
	}
	return nil
}

// named returns the record of the pod that has a name now, nil if there is none.
func (b *podBook) named(name policy.Key) *podRecord {
	if n, ok := b.current.find(name); ok {
		return b.records.get(n)
	}
	return nil
}

// newRecord is an empty record of a pod that isn't known, with a number that nobody has.
func (b *podBook) newRecord(p selector.Pod) *podRecord {
	out := &podRecord{Pod: policy.Pod{ID: p}, number: selector.Number(b.records.size)}
	if last := len(b.free) - 1; last >= 0 {
		out.number = b.free[last]
	}
	return out
}

// store replaces a pod's record and its claims.
func (b *podBook) store(old, next *podRecord) {
	isKept := next.exists() || len(next.endpoints) > 0
	if isKept { // first, as old may have the only equal set
		next.Labels = b.labels.take(next.Labels)
	}
	b.remove(old)
	if !isKept {
		return
	}
	n := next.number
	if int(n) < b.records.size { // it is the last that became free, see newRecord and remove
		b.free = b.free[:len(b.free)-1]
	}
	b.records.put(next)
	for _, a := range next.addresses() {
		b.claims.add(a, n)
	}
	if next.exists() {
		b.current.add(next.Key(), n)
	} else {
		b.former[next.ID] = n
	}
	if next.Node != "" {
		b.byNode[next.Node] = append(b.byNode[next.Node], n)
	}
}

// remove takes a record out, if it is stored, and frees its number.
func (b *podBook) remove(r *podRecord) {
	n := r.number
	if !b.records.has(n) {
		return
	}
	if r.exists() {
		b.current.remove(r.Key())
	} else {
		delete(b.former, r.ID)
	}
	for _, a := range r.addresses() {
		b.claims.remove(a, n)
	}
	b.records.drop(n)
	b.free = append(b.free, n)
	b.labels.release(r.Labels)
	b.leaveNode(r.Node, n)
}

// leaveNode forgets that a pod is on a node. The name may be empty.
func (b *podBook) leaveNode(name string, n selector.Number) {
	pods := b.byNode[name]
	i, last := slices.Index(pods, n), len(pods)-1
	switch {
	case i < 0:
	case last == 0:
		delete(b.byNode, name)
	default:
		pods[i] = pods[last]
		b.byNode[name] = pods[:last]
	}
}

// within adds to out the pods whose status has an address of these nodes, or in their pod CIDRs.
func (b *podBook) within(nodes []policy.Node, out map[selector.Number]struct{}) {
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
	for r := range b.records.all() {
		if slices.ContainsFunc(r.Addresses, places.Contains) {
			out[r.number] = struct{}{}
		}
	}
}
