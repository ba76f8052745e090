// Package prefixset keeps prefixes of addresses that don't overlap, with their owners: pod CIDRs of
// nodes, of which an overlapping one isn't taken.
package prefixset

import (
	"net/netip"
	"slices"
)

// Set is a set of prefixes. The zero value is empty. It isn't safe for concurrent use.
type Set struct {
	prefixes []netip.Prefix // sorted by address
	owners   map[netip.Prefix]string
}

// Overlapping is the owner of a member that overlaps p, which must be masked.
func (s *Set) Overlapping(p netip.Prefix) (owner string, found bool) {
	i, _ := s.find(p)
	// Prefixes nest or are disjoint: only a neighbour in the order can overlap.
	for _, j := range []int{i - 1, i} {
		if j >= 0 && j < len(s.prefixes) && s.prefixes[j].Overlaps(p) {
			return s.owners[s.prefixes[j]], true
		}
	}
	return "", false
}

// Add adds a masked prefix that overlaps no member.
func (s *Set) Add(p netip.Prefix, owner string) {
	i, _ := s.find(p)
	s.prefixes = slices.Insert(s.prefixes, i, p)
	if s.owners == nil {
		s.owners = map[netip.Prefix]string{}
	}
	s.owners[p] = owner
}

func (s *Set) find(p netip.Prefix) (int, bool) {
	return slices.BinarySearchFunc(s.prefixes, p, func(a, b netip.Prefix) int {
		return a.Addr().Compare(b.Addr())
	})
}
