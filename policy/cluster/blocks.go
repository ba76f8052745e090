package cluster

import (
	"net/netip"
	"slices"

	"go4.org/netipx"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// blockMembers returns the disjoint ranges of a set's blocks, both families'.
func (c *Cluster) blockMembers(of *policy.Set) []policy.Member {
	var set netipx.IPSetBuilder
	for _, b := range of.Blocks {
		for _, r := range blockRanges(b, c.nodes.standing, of.ID.For == policy.Deny) {
			set.AddRange(r)
		}
	}
	built, err := set.IPSet()
	if err != nil {
		return nil // only invalid prefixes fail, and Parse lets none through
	}
	var out []policy.Member
	for _, r := range built.Ranges() {
		out = append(out, policy.Member{First: r.From(), Last: r.To()})
	}
	return out
}

// blockRanges returns the ranges of a block. A tunnel address stands for its node, whose packets to
// pods carry it wherever they go through the tunnel: it is in the block by what is said of the
// node, not by the range that it lies in. To deny, that counts as well.
func blockRanges(b policy.Block, s *standing, deny bool) []netipx.IPRange {
	var set netipx.IPSetBuilder
	for _, r := range selector.Subtract(b.CIDR, b.Except) {
		set.AddRange(r)
	}
	for name := range s.claimants(b.CIDR) {
		n := s.nodes[name]
		for _, cidr := range n.PodCIDRs {
			switch tunnel := cidr.Addr(); {
			case containsTunnel(b, n, tunnel):
				set.Add(tunnel)
			case b.CIDR.Contains(tunnel) && !deny:
				set.Remove(tunnel)
			}
		}
	}
	built, err := set.IPSet()
	if err != nil {
		return nil // only invalid prefixes fail, and Parse lets none through
	}
	return built.Ranges()
}

// containsTunnel reports whether a tunnel address of a node is in the block: the CIDR names this
// very address, or has that of the underlay, from which the same packets come where there is no
// tunnel; and none that the node claims is in an except. A range of the pod network means pods:
// outsiders whose connections a node sends on come from its tunnel address too.
func containsTunnel(b policy.Block, n policy.Node, tunnel netip.Addr) bool {
	if tunnel.Is4() != b.CIDR.Addr().Is4() {
		return false
	}
	in := b.CIDR.IsSingleIP() && b.CIDR.Addr() == tunnel
	for a := range claimsOf(n) {
		if b.CIDR.Contains(a) && !b.Contains(a) {
			return false
		}
	}
	return in || slices.ContainsFunc(n.Underlay, b.CIDR.Contains)
}
