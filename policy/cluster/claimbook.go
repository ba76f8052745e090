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
	others := b.of(a)
	if len(others) == 0 && b.records.at(n).has(a) {
		b.setOne(a, n)
		return
	}
	if len(others) == 1 {
		b.forgetOne(a)
	}
	b.more[a] = append(others, n)
}

// remove takes a pod's claim back, if it is there.
func (b *claimBook) remove(a netip.Addr, n selector.Number) {
	claimants, several := b.more[a]
	if !several {
		if one := b.of(a); len(one) > 0 && one[0] == n {
			b.forgetOne(a)
		}
		return
	}
	claimants = slices.DeleteFunc(claimants, func(o selector.Number) bool { return o == n })
	switch {
	case len(claimants) == 0:
		delete(b.more, a)
	case len(claimants) == 1 && b.records.at(claimants[0]).has(a):
		delete(b.more, a)
		b.setOne(a, claimants[0])
	default:
		b.more[a] = claimants
	}
}

// of lists the pods that claim an address. The list may be the book's own.
func (b *claimBook) of(a netip.Addr) []selector.Number {
	n, ok := selector.Number(0), false
	switch {
	case !isKey(a):
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

// setOne makes a pod whose record has the address its one claimant. There was none.
func (b *claimBook) setOne(a netip.Addr, n selector.Number) {
	if a.Is4() {
		b.one4.add(a.As4(), n)
	} else {
		b.one6.add(a.As16(), n)
	}
}

// forgetOne forgets the address's one claimant, if there is one whose record has it.
func (b *claimBook) forgetOne(a netip.Addr) {
	switch {
	case !isKey(a):
	case a.Is4():
		b.one4.remove(a.As4())
	default:
		b.one6.remove(a.As16())
	}
}

// isKey reports whether an address is the same as its bytes.
func isKey(a netip.Addr) bool { return a.IsValid() && a.Zone() == "" }

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
