package cluster

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/selector"
)

// claimBook says which pods claim an address. Nearly always it is one, whose record has it.
type claimBook struct {
	records *shelf
	one4    hashIndex[[4]byte, selector.Number]
	one6    hashIndex[[16]byte, selector.Number]
	more    map[netip.Addr][]selector.Number // of all other addresses
}

// newClaimBook is one without claims, of pods whose records are there before they claim anything,
// and until they don't any more.
func newClaimBook(records *shelf) claimBook {
	return claimBook{
		records: records,
		one4:    newHashIndex(func(n selector.Number) [4]byte { return records.at(n).addr4 }),
		one6:    newHashIndex(func(n selector.Number) [16]byte { return records.at(n).addr6 }),
		more:    map[netip.Addr][]selector.Number{},
	}
}

// add notes a pod's claim; it must not be there yet.
func (b *claimBook) add(a netip.Addr, n selector.Number) {
	b.set(a, append(b.of(a), n))
}

// remove takes a pod's claim back.
func (b *claimBook) remove(a netip.Addr, n selector.Number) {
	b.set(a, slices.DeleteFunc(b.of(a), func(o selector.Number) bool { return o == n }))
}

// of lists the pods that claim an address. The list may be the book's own: what changes it gives
// the result to set.
func (b *claimBook) of(a netip.Addr) []selector.Number {
	n, ok := selector.Number(0), false
	switch {
	case a.Zone() != "": // no key has it
	case a.Is4():
		n, ok = b.one4.find(a.As4())
	default:
		n, ok = b.one6.find(a.As16())
	}
	if ok {
		return []selector.Number{n}
	}
	return b.more[a]
}

func (b *claimBook) set(a netip.Addr, claimants []selector.Number) {
	delete(b.more, a)
	switch {
	case a.Zone() != "":
	case a.Is4():
		b.one4.remove(a.As4())
	default:
		b.one6.remove(a.As16())
	}
	switch single := len(claimants) == 1 && b.records.at(claimants[0]).has(a); {
	case single && a.Is4():
		b.one4.add(a.As4(), claimants[0])
	case single:
		b.one6.add(a.As16(), claimants[0])
	case len(claimants) > 0:
		b.more[a] = claimants
	}
}

// addresses yields the addresses that pods claim, in any order.
func (b *claimBook) addresses() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for n := range b.one4.all() {
			if !yield(netip.AddrFrom4(b.one4.keyOf(n))) {
				return
			}
		}
		for n := range b.one6.all() {
			if !yield(netip.AddrFrom16(b.one6.keyOf(n))) {
				return
			}
		}
		for a := range b.more {
			if !yield(a) {
				return
			}
		}
	}
}

// claimants adds to out every pod that claims one of the addresses.
func (b *claimBook) claimants(addresses []netip.Addr, out map[selector.Number]struct{}) {
	for _, a := range addresses {
		for _, n := range b.of(a) {
			out[n] = struct{}{}
		}
	}
}
