package cluster

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/internal/prefixset"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// standing is what is believed of what all nodes say. It is a value: replaced, never changed.
type standing struct {
	// policyOnly: another plugin says which addresses pods have.
	policyOnly bool
	// nodes have only those of their PodCIDRs and Underlay that are believed.
	nodes map[string]policy.Node
	// ranges are the believed pod CIDRs, tunnels their first addresses, each with the node's name.
	ranges  prefixset.Set
	tunnels map[netip.Addr]string
	// taken are addresses of nodes, at which no pod can be.
	taken map[netip.Addr]bool
	// claims are sorted by address: a policy may have thousands of blocks, a cluster thousands of
	// nodes.
	claims []claim
}

// claim is an address that a node says it has.
type claim struct {
	address netip.Addr
	node    string
}

// newStanding weighs what nodes say. Networks are the ranges of all pods; nil where they aren't
// known.
func newStanding(told map[string]policy.Node, opts Options, networks []netip.Prefix) *standing {
	s := &standing{
		policyOnly: opts.PolicyOnly, nodes: make(map[string]policy.Node, len(told)),
		tunnels: map[netip.Addr]string{}, taken: map[netip.Addr]bool{},
	}
	inOrder := bySeniority(told, opts.Node)
	s.believeRanges(inOrder, networks)
	s.believeUnderlay(inOrder)
	for name, n := range s.nodes {
		for a := range claimsOf(n) {
			s.claims = append(s.claims, claim{a, name})
		}
	}
	slices.SortFunc(s.claims, func(a, b claim) int { return a.address.Compare(b.address) })
	return s
}

// claimants are the names of the nodes that say they have an address in a block.
func (s *standing) claimants(block netip.Prefix) map[string]bool {
	out := map[string]bool{}
	byAddress := func(c claim, a netip.Addr) int { return c.address.Compare(a) }
	first, _ := slices.BinarySearchFunc(s.claims, block.Addr(), byAddress)
	for _, c := range s.claims[first:] {
		if !block.Contains(c.address) {
			break
		}
		out[c.node] = true
	}
	return out
}

// believeRanges believes the pod CIDRs within the pod network; not one that overlaps that of a node
// which comes first, or begins with such a node's address: it would make a tunnel address of
// somebody else's address. The overlay believes no more.
func (s *standing) believeRanges(inOrder []policy.Node, networks []netip.Prefix) {
	addresses := map[netip.Addr]bool{}
	for _, n := range inOrder {
		var cidrs []netip.Prefix
		for _, cidr := range n.PodCIDRs {
			_, overlaps := s.ranges.Overlapping(cidr)
			holds := func(network netip.Prefix) bool { return selector.Within(cidr, network) }
			inside := networks == nil || slices.ContainsFunc(networks, holds)
			if inside && !overlaps && !addresses[cidr.Addr()] {
				s.ranges.Add(cidr, n.Name)
				s.tunnels[cidr.Addr()], s.taken[cidr.Addr()] = n.Name, true
				cidrs = append(cidrs, cidr)
			}
		}
		for _, a := range slices.Concat(n.Addresses, n.Underlay) {
			addresses[a] = true
		}
		n.PodCIDRs = cidrs
		s.nodes[n.Name] = n
	}
}

// believeUnderlay believes addresses of nodes that aren't pods', and of two nodes with one address
// the one that comes first.
func (s *standing) believeUnderlay(inOrder []policy.Node) {
	owners := map[netip.Addr]bool{}
	for _, n := range inOrder {
		var underlay []netip.Addr
		for _, a := range n.Underlay {
			if a.IsGlobalUnicast() && !owners[a] && s.rangeOf(a) == "" {
				owners[a] = true
				underlay = append(underlay, a)
			}
		}
		for _, a := range slices.Concat(n.Addresses, n.Underlay) {
			if s.rangeOf(a) == "" {
				s.taken[a] = true
			}
		}
		n = s.nodes[n.Name]
		n.Underlay = underlay
		s.nodes[n.Name] = n
	}
}

// rangeOf is the node in whose pod CIDRs an address is, or "".
func (s *standing) rangeOf(a netip.Addr) string {
	name, _ := s.ranges.Overlapping(netip.PrefixFrom(a, a.BitLen()))
	return name
}

// bySeniority lists nodes: first the own one, then by age and name.
func bySeniority(nodes map[string]policy.Node, own string) []policy.Node {
	return slices.SortedFunc(maps.Values(nodes), func(a, b policy.Node) int {
		if (a.Name == own) != (b.Name == own) {
			if a.Name == own {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
}

// tunnelOf is the node that a tunnel address stands for.
func (s *standing) tunnelOf(a netip.Addr) (policy.Node, bool) {
	name, ok := s.tunnels[a]
	return s.nodes[name], ok
}

// ofPod returns those addresses of a pod that can be its own: within the pod CIDRs of its node, and
// no node's. Where another plugin gives pods their addresses, they may be outside of all CIDRs too;
// whether such a one is a pod's at all can't be known then.
func (s *standing) ofPod(p *policy.Pod) []netip.Addr {
	if _, known := s.nodes[p.Node]; !known {
		return nil
	}
	canBe := func(a netip.Addr) bool {
		in := s.rangeOf(a)
		return !s.taken[a] && (in == p.Node || in == "" && s.policyOnly)
	}
	for i, a := range p.Addresses {
		if canBe(a) {
			continue
		}
		out := append([]netip.Addr(nil), p.Addresses[:i]...)
		for _, a := range p.Addresses[i+1:] {
			if canBe(a) {
				out = append(out, a)
			}
		}
		return out
	}
	return p.Addresses // nearly always: one list in memory is enough then
}
