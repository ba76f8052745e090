package policy

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sluice-net/sluice/internal/printable"
	"github.com/sluice-net/sluice/selector"
)

// Ref names the rules of one policy for one direction, or those of all policies of a namespace that
// have one podSelector.
type Ref struct {
	Policy    Key
	Subject   selector.Key // the podSelector; Policy has the namespace only. Empty: one policy's
	Direction Direction
}

// Compare orders references by policy, then podSelector, then direction.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(r.Policy.Compare(o.Policy), cmp.Compare(r.Subject, o.Subject),
		cmp.Compare(r.Direction, o.Direction))
}

// RuleRef points at a rule, and at the peer in it, in a manifest.
type RuleRef struct {
	Ref
	// Tier counts where the policy is a ClusterNetworkPolicy.
	Tier Tier
	Rule int
	Name string // of the rule, or empty
	Peer string // as the rule has it; empty: any
}

func (r RuleRef) String() string {
	s := fmt.Sprintf("%s %s rule %d", r.Policy, r.Direction, r.Rule)
	if r.Policy.Namespace == "" {
		s = r.Tier.String() + " policy " + s
	}
	if r.Name != "" {
		s += fmt.Sprintf(" %q", shorten(r.Name))
	}
	if r.Peer != "" {
		s += " (" + shorten(printable.Line(r.Peer)) + ")"
	}
	return s
}

// Clause is one way to match a rule: one set of peers and one alternative of ports. A flow matches
// a rule when it matches any of the rule's clauses, of which there are at most four, however many
// peers and ports the rule lists.
type Clause struct {
	// Of names the rule, or those that allow alike.
	Of      string
	Verdict Verdict
	// Rule is the rule's position in the manifest, where the clause is of one policy.
	Rule int
	// Peer must hold the peer's address. Nil: any address of either family.
	Peer *Set
	// Ports must hold the destination port. Nil: not looked at.
	Ports []selector.PortRange
	// Named must hold the destination's address, protocol and port. Nil: not looked at.
	Named *Set
}

// Clauses lists what the policy's rules match in one direction, in the order of the manifest.
// Clauses of one rule may be in any order.
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
	of := fmt.Sprintf("%s rule %d", p.Key, r.Index)
	base := Clause{Of: of, Verdict: p.Outcome(r), Rule: r.Index,
		Peer: peer.forVerdict(p.Outcome(r))}
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
	c.Named = c.Named.forVerdict(base.Verdict)
	return append(out, c)
}

// CountClauses counts what Clauses lists for a section; nil has none.
func (s *Section) CountClauses() (out int) {
	if s == nil {
		return 0
	}
	for i := range s.Rules {
		r := &s.Rules[i]
		isBlock := func(p Peer) bool { return p.Block != nil }
		isSelector := func(p Peer) bool { return p.Selector != nil }
		peers := count(r.AnyPeer, slices.ContainsFunc(r.Peers, isBlock),
			slices.ContainsFunc(r.Peers, isSelector))
		out += peers * count(r.AnyPort, len(r.Ports) > 0, len(r.Named) > 0)
	}
	return out
}

func count(these ...bool) (out int) {
	for _, is := range these {
		if is {
			out++
		}
	}
	return out
}
