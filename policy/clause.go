package policy

import (
	"net/netip"
	"slices"

	"go4.org/netipx"

	"github.com/sluice-net/sluice/selector"
)

// Ref names the rules of one policy for one direction.
type Ref struct {
	Policy    Key
	Direction Direction
}

// Compare orders references by policy, then direction.
func (r Ref) Compare(o Ref) int {
	if c := r.Policy.Compare(o.Policy); c != 0 {
		return c
	}
	return int(r.Direction) - int(o.Direction)
}

// Clause is one way to match a rule: one set of peers and one alternative of
// ports. A flow matches a rule when it matches any of the rule's clauses, of
// which there are at most four, however many peers and ports the rule lists.
type Clause struct {
	// Rule is the index of the rule in the manifest.
	Rule    int
	Verdict Verdict
	// Peer must hold the peer's address. Nil: any address of either family.
	Peer *Set
	// Ports must hold the destination port. Nil: not looked at.
	Ports []selector.PortRange
	// Named must hold the destination's address, protocol and port. Nil: not
	// looked at.
	Named *Set
}

// Clauses lists what the policy's rules match in one direction, in the order
// of the manifest.
func (p *Policy) Clauses(d Direction) []Clause {
	section := p.Section(d)
	if section == nil {
		return nil
	}
	var out []Clause
	for i := range section.Rules {
		r := &section.Rules[i]
		var pods []selector.Selector
		var blocks []Block
		for _, peer := range r.Peers {
			if peer.Block != nil {
				blocks = append(blocks, *peer.Block)
			} else {
				pods = append(pods, *peer.Selector)
			}
		}
		if r.AnyPeer {
			out = append(out, p.peerClauses(d, r, nil)...)
		}
		if len(pods) > 0 {
			out = append(out, p.peerClauses(d, r, podSet(pods))...)
		}
		if len(blocks) > 0 {
			out = append(out, p.peerClauses(d, r, blockSet(blocks))...)
		}
	}
	return out
}

// peerClauses lists a rule's clauses of one set of peers; nil is any peer.
func (p *Policy) peerClauses(d Direction, r *Rule, peer *Set) []Clause {
	base := Clause{Rule: r.Index, Verdict: r.Verdict, Peer: peer}
	if r.AnyPort {
		return []Clause{base}
	}
	var out []Clause
	if len(r.Ports) > 0 {
		c := base
		c.Ports = r.Ports
		out = append(out, c)
	}
	if len(r.Named) == 0 {
		return out
	}
	c := base
	switch {
	case d == Ingress:
		c.Named = portSet(LocalPortSet, []selector.Selector{p.Subject}, r.Named)
	case peer != nil && peer.ID.Kind == PodSet:
		// The set holds just the peers' pods: one look-up answers both.
		c.Peer, c.Named = nil, portSet(PortSet, peer.Pods, r.Named)
	default:
		c.Named = portSet(PortSet, []selector.Selector{{}}, r.Named)
	}
	return append(out, c)
}

// blockMembers returns the disjoint ranges of blocks, both families'.
func (c *Cluster) blockMembers(blocks []Block) []Member {
	var set netipx.IPSetBuilder
	for _, b := range blocks {
		for _, r := range blockRanges(b, c.nodes.standing) {
			set.AddRange(r)
		}
	}
	built, err := set.IPSet()
	if err != nil {
		return nil // only invalid prefixes fail, and Parse lets none through
	}
	var out []Member
	for _, r := range built.Ranges() {
		out = append(out, Member{First: r.From(), Last: r.To()})
	}
	return out
}

// blockRanges returns the ranges of a block. A tunnel address stands
// for its node, whose packets to pods carry it wherever they go through the
// tunnel: it is in the block by what is said of the node, not by the range that
// it lies in.
func blockRanges(b Block, s *standing) []netipx.IPRange {
	var set netipx.IPSetBuilder
	for _, r := range selector.Subtract(b.CIDR, b.Except) {
		set.AddRange(r)
	}
	for name := range s.claimants(b.CIDR) {
		n := s.nodes[name]
		for _, cidr := range n.PodCIDRs {
			switch tunnel := cidr.Addr(); {
			case b.containsTunnel(n, tunnel):
				set.Add(tunnel)
			case b.CIDR.Contains(tunnel):
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

// containsTunnel reports whether a tunnel address of a node is in the block:
// the CIDR names this very address, or has that of the underlay, from which the
// same packets come where there is no tunnel; and none that the node claims is
// in an except. A range of the pod network means pods: outsiders whose
// connections a node sends on come from its tunnel address too.
func (b Block) containsTunnel(n Node, tunnel netip.Addr) bool {
	if tunnel.Is4() != b.CIDR.Addr().Is4() {
		return false
	}
	in := b.CIDR.IsSingleIP() && b.CIDR.Addr() == tunnel
	for a := range n.claims {
		if b.CIDR.Contains(a) && !b.Contains(a) {
			return false
		}
	}
	return in || slices.ContainsFunc(n.Underlay, b.CIDR.Contains)
}
