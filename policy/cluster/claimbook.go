package cluster

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/selector"
)

// claimBook says which pods claim an address. Nearly always it is one.
type claimBook struct {
	one4 map[[4]byte]selector.Number
	one6 map[[16]byte]selector.Number
	more map[netip.Addr][]selector.Number // of addresses that several claim, or with a zone
}

func newClaimBook() claimBook {
	return claimBook{
		one4: map[[4]byte]selector.Number{}, one6: map[[16]byte]selector.Number{},
		more: map[netip.Addr][]selector.Number{},
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
	case a.Zone() != "": // it would be lost in the map
	case a.Is4():
		n, ok = b.one4[a.As4()]
	default:
		n, ok = b.one6[a.As16()]
	}
	if ok {
		return []selector.Number{n}
	}
	return b.more[a]
}

func (b *claimBook) set(a netip.Addr, claimants []selector.Number) {
	delete(b.more, a)
	single := len(claimants) == 1
	switch zone := a.Zone() != ""; {
	case zone:
		single = false
	case a.Is4() && single:
		b.one4[a.As4()] = claimants[0]
	case a.Is4():
		delete(b.one4, a.As4())
	case single:
		b.one6[a.As16()] = claimants[0]
	default:
		delete(b.one6, a.As16())
	}
	if len(claimants) > 0 && !single {
		b.more[a] = claimants
	}
}

// addresses yields the addresses that pods claim, in any order.
func (b *claimBook) addresses() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for a := range b.one4 {
			if !yield(netip.AddrFrom4(a)) {
				return
			}
		}
		for a := range b.one6 {
			if !yield(netip.AddrFrom16(a)) {
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
