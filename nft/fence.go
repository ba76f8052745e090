package nft

import (
	"iter"
	"maps"
	"slices"
)

// A fence finds the keys of verdict maps that must not get their new verdict in the transaction
// that rewrites rules. A packet under way has its old rules, but the new elements of the map.
// Between these it could find a way that neither state has. That takes a chain with changed rules
// that the packet can meet before the map's lookup, after it, or behind the new verdict.
type fence struct {
	pl     *planner
	beside map[string]bool // by map: changed rules are reachable round its lookups
	behind map[string]bool // by chain: changed rules are reachable from it
}

func newFence(pl *planner) fence {
	return fence{pl: pl, beside: map[string]bool{}, behind: map[string]bool{}}
}

// needed reports whether the key has to wait for the last transaction with its new verdict, which
// is zero if it leaves. An existing key that accepts needs no fence: the old state allowed every
// packet that reached the map. Nor does a key of a NAT map: packets are judged where it leads them.
func (f fence) needed(m *Set, key Element, now Verdict) bool {
	if m.Targets != 0 || m.Elements[key].Kind == Accept {
		return false
	}
	if f.pl.skips.fences(m, key, now) {
		return true
	}
	if len(f.pl.changedRules) == 0 {
		return false
	}
	return now.Kind == Jump && f.changedBehind(now.Chain) || f.changedBeside(m)
}

// changedBehind reports whether a packet that is sent to the chain can meet changed rules.
func (f fence) changedBehind(chain string) bool {
	if changed, known := f.behind[chain]; known {
		return changed
	}
	f.behind[chain] = false // chains have no loops; if one has, it ends here
	changed := f.pl.changedRules[chain]
	for _, ref := range f.refs(chain) {
		changed = changed || ref.Chain != "" && f.changedBehind(ref.Chain)
		for _, target := range f.targets(ref.Set) {
			changed = changed || f.changedBehind(target)
		}
	}
	f.behind[chain] = changed
	return changed
}

// changedBeside reports whether a packet that meets the map can meet changed rules before or after
// that, other than through the map itself. It counts all that is reachable from an old base chain
// which leads to the map; new ones come behind those.
func (f fence) changedBeside(m *Set) bool {
	if changed, known := f.beside[m.Name]; known {
		return changed
	}
	changed := false
	for _, c := range f.pl.have.Chains {
		if c.Base == nil {
			continue
		}
		w := walk{fence: f, without: m, seen: map[string]bool{}}
		w.visit(c.Name)
		changed = changed || w.meets && w.changed
	}
	f.beside[m.Name] = changed
	return changed
}

// A walk visits the chains that a packet can meet without going through a map, and without going
// through maps for the other IP version.
type walk struct {
	fence
	without *Set
	seen    map[string]bool
	meets   bool // a lookup in the map was found
	changed bool // a chain with changed rules was found
}

func (w *walk) visit(chain string) {
	if chain == "" || w.seen[chain] {
		return
	}
	w.seen[chain] = true
	w.changed = w.changed || w.pl.changedRules[chain]
	for _, ref := range w.refs(chain) {
		w.visit(ref.Chain)
		if ref.Set == w.without.Name {
			w.meets = true
			continue
		}
		if other := w.pl.have.Sets[ref.Set]; other != nil && exclusive(other, w.without) {
			continue
		}
		for _, target := range w.targets(ref.Set) {
			w.visit(target)
		}
	}
}

// exclusive reports whether no packet has a key in both maps, because their keys are of different
// IP versions.
func exclusive(a, b *Set) bool {
	family := func(s *Set) int {
		for _, field := range s.Key {
			if v := field.Family(); v != 0 {
				return v
			}
		}
		return 0
	}
	return family(a) != 0 && family(b) != 0 && family(a) != family(b)
}

// rules are those of a packet that entered before the switch: the old rules, or those of a new
// chain.
func (f fence) rules(chain string) []Rule {
	if c := f.pl.have.Chains[chain]; c != nil {
		return c.Rules
	}
	if c := f.pl.patch.Chains[chain]; c != nil {
		return c.Rules
	}
	return nil
}

// refs are the references in these rules.
func (f fence) refs(chain string) (refs []Ref) {
	for _, r := range f.rules(chain) {
		refs = slices.AppendSeq(refs, r.refs())
	}
	return refs
}

// targets are the chains that a verdict map leads to, before or after.
func (f fence) targets(name string) []string {
	var chains []string
	for _, v := range f.verdicts(name) {
		if v.Kind == Jump {
			chains = append(chains, v.Chain)
		}
	}
	return chains
}

// verdicts are those of a verdict map, before or after.
func (f fence) verdicts(name string) []Verdict {
	var out []Verdict
	if s := f.pl.have.Sets[name]; s != nil && s.Verdicts {
		out = slices.AppendSeq(out, maps.Values(s.Elements))
	}
	if sp := f.pl.patch.Sets[name]; sp != nil {
		out = slices.AppendSeq(out, maps.Values(sp.Put))
		if sp.Create != nil {
			out = slices.AppendSeq(out, maps.Values(sp.Create.Elements))
		}
	}
	return out
}

// A Ref is a reference from a rule to a chain or a set.
type Ref struct{ Chain, Set string }

func (c *Chain) refs() (refs []Ref) {
	for _, r := range c.Rules {
		refs = slices.AppendSeq(refs, r.refs())
	}
	return refs
}

// refs are in the order in which a packet meets them.
func (r Rule) refs() iter.Seq[Ref] {
	return func(yield func(Ref) bool) {
		for _, s := range r.Statements {
			if ref := refOf(s); ref != (Ref{}) && !yield(ref) {
				return
			}
		}
	}
}

// refOf is what a statement refers to, or nothing.
func refOf(s Statement) Ref {
	switch s := s.(type) {
	case Do:
		if s.Kind == Jump {
			return Ref{Chain: s.Chain}
		}
	case InSet:
		return Ref{Set: s.Set}
	case Dispatch:
		return Ref{Set: s.Map}
	case DNAT:
		return Ref{Set: s.Map}
	case Foreign:
		return s.Ref
	}
	return Ref{}
}
