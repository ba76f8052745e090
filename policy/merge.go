package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/selector"
)

// Merged lists what policies allow together in a direction that select the same pods: those of one
// namespace with one podSelector. What several of them allow on the same ports is one clause, with
// the peers of all, so there are as many clauses as there are different lists of ports, and not as
// many as policies. Only whole policies that allow can be merged: their order must not matter.
//
// Not merged are peers that may be a large part of the cluster, and are looked up by others too.
// The IDs of merged sets belong to these policies alone; see Set.Union.
func Merged(policies []*Policy, d Direction) []Clause {
	m := merger{direction: d, of: map[mergeKey]*alike{}}
	for _, p := range policies {
		for _, cl := range p.Clauses(d) {
			m.add(p, cl)
		}
	}
	var out []Clause
	for _, k := range m.order {
		out = append(out, m.of[k].clauses()...)
	}
	return out
}

// mergeKey is what clauses have in common that become one.
type mergeKey struct {
	ports string
	named SetID
	peer  SetID // an empty Peers: of any of the kind
	any   bool  // there is no peer to look up
	is4   bool  // of blocks
}

// alike are clauses that become one.
type alike struct {
	Clause

	from     []string // the rules
	union    SetID    // of the peers; no Peers: they are those of Clause
	pods     []selector.Selector
	blocks   []Block
	included map[string]bool // what is in pods or blocks already
	single   []Clause        // of each rule, with its blocks alone
}

type merger struct {
	direction Direction
	of        map[mergeKey]*alike
	order     []mergeKey
}

func (m *merger) add(p *Policy, cl Clause) {
	k := mergeKey{ports: portsText(cl.Ports)}
	if cl.Named != nil {
		k.named = cl.Named.ID
	}
	switch {
	case cl.Peer == nil:
		k.any = true
		m.join(k, cl, SetID{})
	case !mergeable(cl.Peer):
		k.peer = cl.Peer.ID
		m.join(k, cl, SetID{})
	case cl.Peer.ID.Kind == PodSet:
		k.peer.Kind = PodSet
		a := m.join(k, cl, m.unionID(p, k, ""))
		for i, s := range cl.Peer.Pods {
			if a.include(string(cl.Peer.Keys[i])) {
				a.pods = append(a.pods, s)
			}
		}
	default:
		k.peer.Kind = BlockSet
		for _, k.is4 = range []bool{true, false} {
			m.addBlocks(p, k, cl)
		}
	}
}

// addBlocks adds those blocks of a clause that are of the key's family: a set has one.
func (m *merger) addBlocks(p *Policy, k mergeKey, cl Clause) {
	blocks := slices.DeleteFunc(slices.Clone(cl.Peer.Blocks), func(b Block) bool {
		return b.CIDR.Addr().Is4() != k.is4
	})
	if len(blocks) == 0 {
		return
	}
	cl.Peer = blockSet(blocks)
	a := m.join(k, cl, m.unionID(p, k, familyOf(blocks[0].CIDR)))
	a.single = append(a.single, cl)
	for _, b := range blocks {
		if a.include(b.String()) {
			a.blocks = append(a.blocks, b)
		}
	}
}

// join notes that a rule's clause becomes part of what has the key.
func (m *merger) join(k mergeKey, cl Clause, union SetID) *alike {
	a := m.of[k]
	if a == nil {
		a = &alike{Clause: cl, union: union, included: map[string]bool{}}
		m.of[k] = a
		m.order = append(m.order, k)
	}
	if from := cl.Of; len(a.from) == 0 || a.from[len(a.from)-1] != from {
		a.from = append(a.from, from)
	}
	return a
}

func (a *alike) include(text string) (first bool) {
	first = !a.included[text]
	a.included[text] = true
	return first
}

// unionID names a set by what it is for, and not by its content: so it stays the same set when a
// policy comes or goes.
func (m *merger) unionID(p *Policy, k mergeKey, family string) SetID {
	parts := []string{fmt.Sprintf("%s peers of %s", m.direction, p.Subject.Key())}
	for _, part := range []string{family, k.ports, k.named.String()} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return SetID{Kind: k.peer.Kind, Peers: spell([]string{strings.Join(parts, ", ")})}
}

// clauses are one, unless its blocks are too many.
func (a *alike) clauses() []Clause {
	out := a.Clause
	out.Of = summary(a.from)
	if a.union.Peers == "" {
		return []Clause{out}
	}
	if len(a.blocks) > mostInUnion {
		return a.single
	}
	if a.union.Kind == PodSet {
		out.Peer = podSet(sortedBy(a.pods, selector.Selector.Key))
	} else {
		out.Peer = blockSet(sortedBy(a.blocks, Block.String))
	}
	out.Peer.ID, out.Peer.Union = a.union, true
	return []Clause{out}
}

// sortedBy puts things into the order of their texts.
func sortedBy[T any, Text ~string](of []T, text func(T) Text) []T {
	return slices.SortedFunc(slices.Values(of), func(a, b T) int {
		return cmp.Compare(text(a), text(b))
	})
}

// summary names the first rules, and how many more there are.
func summary(from []string) string {
	const named = 2
	if len(from) <= named {
		return strings.Join(from, ", ")
	}
	return fmt.Sprintf("%s and %d more", from[0], len(from)-1)
}

// Of a rule's set that is to be merged, most is how many selectors or blocks it has. Ranges are
// written anew when one of them changes, so there are at most mostInUnion of a set.
const most, mostInUnion = 64, 1024

// mergeable says whether a set of peers is probably small, which depends on nothing but the policy:
// a few blocks, or pods that have a certain label in namespaces with certain names. Others may be a
// large part of the cluster, and looked up by the policies of many; there should be one of each.
func mergeable(s *Set) bool {
	return len(s.Blocks) <= most && len(s.Pods) <= most &&
		!slices.ContainsFunc(s.Pods, func(p selector.Selector) bool {
			named := p.Namespace != "" || slices.ContainsFunc(p.Namespaces, isIn(NamespaceName))
			return !named || !slices.ContainsFunc(p.Pods, isIn(""))
		})
}

// isIn says whether a requirement is that a label has one of certain values; an empty key is any.
func isIn(key string) func(selector.Requirement) bool {
	return func(r selector.Requirement) bool {
		return r.Op == selector.In && (key == "" || r.Key == key)
	}
}

func familyOf(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// portsText spells port ranges.
func portsText(ranges []selector.PortRange) string {
	parts := make([]string, len(ranges))
	for i, r := range ranges {
		parts[i] = fmt.Sprintf("%s %d-%d", ProtocolName(r.Protocol), r.First, r.Last)
		if r.First == r.Last {
			parts[i] = fmt.Sprintf("%s %d", ProtocolName(r.Protocol), r.First)
		}
	}
	return strings.Join(parts, ", ")
}
