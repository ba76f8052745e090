package policy

import (
	"net/netip"

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

// Clause is one way to match a rule: one peer set and one alternative of
// ports. A flow matches a rule when it matches any of the rule's clauses.
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

// SetKind says what a set holds.
type SetKind uint8

const (
	// PodSet holds the addresses of the pods that a selector picks.
	PodSet SetKind = iota
	// BlockSet holds the ranges of an ipBlock.
	BlockSet
	// PortSet holds address and number of a named port, for every pod that a
	// selector picks.
	PortSet
	// LocalPortSet is a PortSet of this node's endpoints only, for ingress.
	LocalPortSet
)

// SetID identifies a set: equal IDs mean equal members.
type SetID struct {
	Kind     SetKind
	Selector selector.Key
	Block    string
	Port     NamedPort
}

func (id SetID) String() string {
	switch id.Kind {
	case PodSet:
		return string(id.Selector)
	case BlockSet:
		return id.Block
	case PortSet, LocalPortSet:
		return id.Port.String() + " of " + string(id.Selector)
	}
	return "unknown"
}

// Set is a set that clauses refer to, with what is needed to fill it.
type Set struct {
	ID       SetID
	Selector selector.Selector
	Block    Block
}

// Member is an element of a set: one address (Last equals First), a range of
// them in a BlockSet, an address with a port in a PortSet. The port's protocol
// is the set's.
type Member struct {
	First, Last netip.Addr
	Port        uint16
}

func podSet(s selector.Selector) *Set {
	return &Set{ID: SetID{Kind: PodSet, Selector: s.Key()}, Selector: s}
}

func blockSet(b Block) *Set {
	return &Set{ID: SetID{Kind: BlockSet, Block: b.String()}, Block: b}
}

func portSet(kind SetKind, s selector.Selector, n NamedPort) *Set {
	return &Set{ID: SetID{Kind: kind, Selector: s.Key(), Port: n}, Selector: s}
}

// Clauses lists what the policy's rules match in one direction, in the order
// of the manifest.
func (p *Policy) Clauses(d Direction) []Clause {
	section := p.Section(d)
	if section == nil {
		return nil
	}
	var out []Clause
	for _, r := range section.Rules {
		if r.AnyPeer {
			out = append(out, p.peerClauses(d, r, nil)...)
		}
		for i := range r.Peers {
			out = append(out, p.peerClauses(d, r, &r.Peers[i])...)
		}
	}
	return out
}

// peerClauses lists the clauses of one peer; a nil peer is any.
func (p *Policy) peerClauses(d Direction, r Rule, peer *Peer) []Clause {
	base := Clause{Rule: r.Index, Verdict: r.Verdict, Peer: peerSet(peer)}
	if r.AnyPort {
		return []Clause{base}
	}
	var out []Clause
	if len(r.Ports) > 0 {
		c := base
		c.Ports = r.Ports
		out = append(out, c)
	}
	for _, n := range r.Named {
		c := base
		switch {
		case d == Ingress:
			c.Named = portSet(LocalPortSet, p.Subject, n)
		case peer != nil && peer.Selector != nil:
			// The set holds just the peer's pods: one look-up answers both.
			c.Peer, c.Named = nil, portSet(PortSet, *peer.Selector, n)
		default:
			c.Named = portSet(PortSet, selector.Selector{}, n)
		}
		out = append(out, c)
	}
	return out
}

func peerSet(peer *Peer) *Set {
	switch {
	case peer == nil:
		return nil
	case peer.Block != nil:
		return blockSet(*peer.Block)
	}
	return podSet(*peer.Selector)
}

// blockMembers returns the disjoint ranges of a block. A tunnel address of
// another node stands for that node, whose packets to pods carry it: it is in
// the block when any of the node's addresses of that family is in the CIDR and
// none is in an except.
func blockMembers(b Block, nodes map[string]Node, own string) []Member {
	ranges := selector.Subtract(b.CIDR, b.Except)
	var set netipx.IPSetBuilder
	for _, r := range ranges {
		set.AddRange(r)
	}
	for name, n := range nodes {
		if name == own {
			continue
		}
		for _, cidr := range n.PodCIDRs {
			switch tunnel := cidr.Addr(); {
			case tunnel.Is4() != b.CIDR.Addr().Is4():
			case b.containsNode(n):
				set.Add(tunnel)
			default:
				set.Remove(tunnel)
			}
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

// containsNode reports whether any address of the node is in the block's CIDR
// and none in an except.
func (b Block) containsNode(n Node) bool {
	in := false
	for i := range len(n.Addresses) + len(n.PodCIDRs) {
		a := n.address(i)
		if !b.CIDR.Contains(a) {
			continue
		}
		if !b.Contains(a) {
			return false
		}
		in = true
	}
	return in
}
