package cluster

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/selector"
)

// addresses lists what the pod claims and could have: what is believed of its status while it
// lives, and its attachments as long as they exist.
func (r *podRecord) addresses() []netip.Addr {
	var out []netip.Addr
	if r.live() {
		out = append(out, r.believed...)
	}
	for _, e := range r.endpoints {
		out = append(out, e.Addresses...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// attachedTo reports whether the pod is under policy by the address.
func (r *podRecord) attachedTo(a netip.Addr) bool {
	for _, e := range r.endpoints {
		if slices.Contains(e.Addresses, a) {
			return true
		}
	}
	return false
}

// wiredTo reports whether a plugin on this node gave the pod the address.
func (r *podRecord) wiredTo(a netip.Addr) bool {
	for _, e := range r.endpoints {
		if !e.FromStatus && slices.Contains(e.Addresses, a) {
			return true
		}
	}
	return false
}

// owner returns the pod whose policies govern an address, nil if there is none. An attachment to
// this node decides; then a live pod that was wired with it wins over others, a live pod over one
// that isn't, an attachment whose pod isn't known yet over one whose pod has come to its end, a
// wired one over others, and one that stays over one that ends. Of those left, the oldest says on
// which node the address is, and the newest there has it: addresses go from pod to pod of one node,
// and nobody takes one away from a node.
func (b *podBook) owner(a netip.Addr) *podRecord {
	return b.choose(a, b.claims.of(a), func(r *podRecord) bool { return r.attachedTo(a) })
}

// peer returns the pod that others meet at an address, nil if there is none: the owner, unless that
// has nothing to show for it but a status that can't be true, or an older pod elsewhere has the
// address.
func (b *podBook) peer(a netip.Addr) *podRecord {
	r := b.owner(a)
	switch {
	case r == nil:
		return nil
	case r.wiredTo(a) || !r.attachedTo(a):
		if !r.live() {
			return nil
		}
		return r
	}
	believed := slices.DeleteFunc(slices.Clone(b.claims.of(a)), func(n selector.Number) bool {
		r := b.records.get(n)
		return !r.live() || !slices.Contains(r.believed, a)
	})
	return b.choose(a, believed, func(*podRecord) bool { return false })
}

// choose picks one of the pods that claim an address, nil if none does; those that are here come
// first.
func (b *podBook) choose(
	a netip.Addr, claims []selector.Number, here func(*podRecord) bool,
) *podRecord {
	switch len(claims) {
	case 0:
		return nil
	case 1:
		return b.records.get(claims[0])
	}
	records := make([]*podRecord, len(claims))
	for i, n := range claims {
		records[i] = b.records.get(n)
	}
	rank := func(x, y *podRecord) int {
		return cmp.Or(
			compareBool(here(x), here(y)),
			compareBool(x.live() && x.wiredTo(a), y.live() && y.wiredTo(a)),
			compareBool(x.live(), y.live()),
			compareBool(!x.known, !y.known),
			compareBool(x.wiredTo(a), y.wiredTo(a)),
			compareBool(!x.Terminating, !y.Terminating),
		)
	}
	first := slices.MaxFunc(records, rank)
	records = slices.DeleteFunc(records, func(r *podRecord) bool { return rank(r, first) != 0 })
	if node := slices.MinFunc(records, byAge).Node; !here(first) {
		records = slices.DeleteFunc(records, func(r *podRecord) bool { return r.Node != node })
	}
	return slices.MaxFunc(records, byAge)
}

// byAge orders pods from the oldest on.
func byAge(x, y *podRecord) int {
	return cmp.Or(
		x.Created.Compare(y.Created),
		cmp.Compare(x.ID.Namespace, y.ID.Namespace),
		cmp.Compare(x.ID.Name, y.ID.Name),
		cmp.Compare(x.ID.UID, y.ID.UID),
	)
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

// has reports whether an address is a pod's own: it was wired with it, or others meet it there.
// Like the functions below, it is for a nil record too: such a pod has nothing.
func (b *podBook) has(r *podRecord, a netip.Addr) bool {
	switch {
	case r == nil:
		return false
	case r.wiredTo(a):
		return r.isThat(b.owner(a))
	}
	return r.isThat(b.peer(a))
}

// governed lists the addresses that are under the pod's policies.
func (b *podBook) governed(r *podRecord) []netip.Addr {
	return r.those(func(a netip.Addr) bool { return r.isThat(b.owner(a)) })
}

// met lists the addresses at which others meet the pod.
func (b *podBook) met(r *podRecord) []netip.Addr {
	return r.those(func(a netip.Addr) bool { return r.isThat(b.peer(a)) })
}

// own lists the addresses that the pod has.
func (b *podBook) own(r *podRecord) []netip.Addr {
	return r.those(func(a netip.Addr) bool { return b.has(r, a) })
}

// those lists the pod's addresses that are so.
func (r *podRecord) those(are func(netip.Addr) bool) []netip.Addr {
	if r == nil {
		return nil
	}
	return slices.DeleteFunc(r.addresses(), func(a netip.Addr) bool { return !are(a) })
}
