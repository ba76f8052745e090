package nft

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/internal/names"
)

// TableName is the name of the one table (family inet) that this package reads and writes.
const TableName = names.Table

// A Ruleset is the whole content of the table, desired or installed. Map keys are the names of the
// objects and equal their Name fields. It isn't safe for concurrent use.
type Ruleset struct {
	Chains map[string]*Chain
	Sets   map[string]*Set
}

// NewRuleset returns a ruleset without chains and sets.
func NewRuleset() *Ruleset {
	return &Ruleset{Chains: map[string]*Chain{}, Sets: map[string]*Set{}}
}

// AddChain puts c into the ruleset under its name, and returns it.
func (r *Ruleset) AddChain(c *Chain) *Chain {
	r.Chains[c.Name] = c
	return c
}

// AddSet puts s into the ruleset under its name, and returns it.
func (r *Ruleset) AddSet(s *Set) *Set {
	if s.Elements == nil {
		s.Elements = map[Element]Verdict{}
	}
	r.Sets[s.Name] = s
	return s
}

// Clone returns a copy that shares nothing that may change: rules are treated as values that are
// replaced, never edited.
func (r *Ruleset) Clone() *Ruleset {
	c := NewRuleset()
	for name, chain := range r.Chains {
		c.Chains[name] = chain.clone()
	}
	for name, set := range r.Sets {
		c.Sets[name] = set.clone()
	}
	return c
}

// A Chain is an ordered list of rules. A packet that reaches the end of a regular chain goes back
// to the rule after the jump; at its end, a base chain accepts the packet.
type Chain struct {
	Name  string
	Base  *Base // nil: a regular chain
	Rules []Rule
}

func (c *Chain) clone() *Chain {
	d := *c
	d.Rules = slices.Clone(c.Rules)
	return &d
}

// Equal reports whether both chains have the same place and the same rules in the same order.
func (c *Chain) Equal(d *Chain) bool {
	return c.SameShape(d) && slices.EqualFunc(c.Rules, d.Rules, Rule.Equal)
}

// SameShape reports whether one chain can become the other by changing its rules. The kernel can't
// move a base chain.
func (c *Chain) SameShape(d *Chain) bool {
	if c.Base == nil || d.Base == nil {
		return c.Base == d.Base
	}
	return *c.Base == *d.Base
}

// Base is the place of a base chain in the packet's path, and what its rules may do there. Its
// policy is always accept: only rules drop.
type Base struct {
	Type     ChainType
	Hook     Hook
	Priority int

	// Foreign describes what a base chain in the kernel has that ours never have: another type or
	// policy. It makes the chain differ from any desired one.
	Foreign string
}

// ChainType is what the rules of a base chain may do.
type ChainType uint8

// The types. A filter chain judges every packet. A NAT chain only sees the first packet of a
// connection, and only where the connection has no translation of that direction yet; all others
// are translated as it was. It sits at any hook but forward, at a priority above -200. Filter
// chains judge what it accepts all the same, so it doesn't decide what is allowed.
const (
	FilterChain ChainType = iota
	NATChain
)

// Hook is a place in the packet's path, numbered as in linux/netfilter.h.
type Hook uint32

// The hooks of the inet family.
const (
	HookPrerouting Hook = iota
	HookInput
	HookForward
	HookOutput
	HookPostrouting
)

// A Rule is a list of statements, evaluated in order until one doesn't match or ends the rule with
// a verdict.
type Rule struct {
	Statements []Statement

	// Comment is for people. Its length isn't limited here: it is clamped (with a hash) to what nft
	// prints and parses when it is encoded.
	Comment string
}

// Equal reports whether both rules do the same and carry the same comment.
func (r Rule) Equal(s Rule) bool {
	return r.Comment == s.Comment && slices.EqualFunc(r.Statements, s.Statements, equalStatements)
}

// A Set is a named set or, with Verdicts, a verdict map or, with Targets, a NAT map.
type Set struct {
	Name     string
	Key      []Field // one field, or a concatenation
	Interval bool    // elements are ranges
	Verdicts bool    // elements carry a Verdict

	// Targets makes the set a NAT map: DstAddr4 or DstAddr6 is the family of its targets, each an
	// address with a port. Every element's Verdict is a NATTo. 0: not a NAT map.
	Targets Field

	// Guard marks a set that rules match to drop packets, so that more elements deny more, or to
	// leave packets out of a translation. Its elements join before everything else of a patch and
	// leave after it: the reverse of other sets. Only plain sets can be guards.
	Guard bool

	// Skip marks a set that rules match to return: its members skip the rest of the chain, which
	// may allow more than what comes after it, or less. Only plain sets without ranges can be one,
	// and only rules behind a verdict map may look into it.
	Skip bool

	// Comment is shown by nft. The kernel can't change it later, so it is written when the set is
	// created and never compared.
	Comment string

	// Elements holds the members; the Verdict is zero in a plain set, and a NATTo in a NAT map.
	// Ranges must not overlap: the kernel refuses those.
	Elements map[Element]Verdict
}

func (s *Set) clone() *Set {
	d := *s
	d.Key = slices.Clone(s.Key)
	d.Elements = maps.Clone(s.Elements)
	if d.Elements == nil {
		d.Elements = map[Element]Verdict{}
	}
	return &d
}

// SameShape reports whether both sets have the same definition, which the kernel can't change in
// place. Elements, comments, and what rules do with members don't count. Two fields of one type
// (source and destination address) make the same key.
func (s *Set) SameShape(d *Set) bool {
	return s.Interval == d.Interval && s.Verdicts == d.Verdicts &&
		s.Targets.Type() == d.Targets.Type() &&
		slices.EqualFunc(s.Key, d.Key, func(a, b Field) bool { return a.Type() == b.Type() })
}

// IsMap reports whether the elements carry something.
func (s *Set) IsMap() bool { return s.Verdicts || s.Targets != 0 }

// Verdict says what becomes of a packet. The zero value is no verdict: the next statement or rule
// decides.
type Verdict struct {
	Kind   VerdictKind
	Chain  string         // the target of a Jump, else empty
	Target netip.AddrPort // the target of a NATTo, else zero
}

// VerdictKind is the kind of a Verdict.
type VerdictKind uint8

// The verdicts. Accept ends only the base chain in which the packet is; Drop is final. There is no
// goto: see the package documentation.
const (
	NoVerdict VerdictKind = iota
	Accept
	Drop
	Jump
	Return
	NATTo // in elements of NAT maps only

	// ForeignVerdict is any other verdict found in the kernel.
	ForeignVerdict
)

// JumpTo returns the verdict that jumps to the chain.
func JumpTo(chain string) Verdict { return Verdict{Kind: Jump, Chain: chain} }

// NATTarget returns the verdict of a NAT map's element. An IPv4-mapped IPv6 address counts as IPv4.
func NATTarget(to netip.AddrPort) Verdict {
	return Verdict{Kind: NATTo, Target: netip.AddrPortFrom(to.Addr().Unmap(), to.Port())}
}
