package nft

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// This file is a small model of the kernel: it carries operations out on a ruleset, strict about
// what the kernel is strict about, and says what can become of a packet whose rules are of one
// generation and whose set lookups are of the same or later ones.

// do carries an operation out.
func (r *Ruleset) do(op Op) error {
	switch op.Kind {
	case AddTable:
	case AddChain:
		if r.Chains[op.Chain.Name] != nil {
			return fmt.Errorf("chain %s exists", op.Chain.Name)
		}
		r.Chains[op.Chain.Name] = &Chain{Name: op.Chain.Name, Base: op.Chain.Base}
	case AddRules:
		c := r.Chains[op.Chain.Name]
		if c == nil {
			return fmt.Errorf("no chain %s", op.Chain.Name)
		}
		c.Rules = append(c.Rules, op.Rules...)
		return r.resolve()
	case FlushChain:
		if r.Chains[op.Chain.Name] == nil {
			return fmt.Errorf("no chain %s", op.Chain.Name)
		}
		r.Chains[op.Chain.Name].Rules = nil
	case DeleteChain:
		if r.Chains[op.Chain.Name] == nil {
			return fmt.Errorf("no chain %s", op.Chain.Name)
		}
		delete(r.Chains, op.Chain.Name)
		return r.resolve()
	case AddSet:
		if r.Sets[op.Set.Name] != nil {
			return fmt.Errorf("set %s exists", op.Set.Name)
		}
		s := op.Set.clone()
		s.Elements = map[Element]Verdict{}
		r.Sets[s.Name] = s
	case SetElements:
		return r.doElements(op)
	case DeleteSet:
		if r.Sets[op.Set.Name] == nil {
			return fmt.Errorf("no set %s", op.Set.Name)
		}
		delete(r.Sets, op.Set.Name)
		return r.resolve()
	default:
		return fmt.Errorf("unknown operation %s", op)
	}
	return nil
}

func (r *Ruleset) doElements(op Op) error {
	s := r.Sets[op.Set.Name]
	if s == nil {
		return fmt.Errorf("no set %s", op.Set.Name)
	}
	for _, e := range op.Leave {
		if _, there := s.Elements[e]; !there {
			return fmt.Errorf("set %s has no %s", s.Name, e.Text(s.Key))
		}
		delete(s.Elements, e)
	}
	for _, m := range op.Join {
		for e := range s.Elements {
			if _, overlap := boxOf(s.Key, e).intersect(boxOf(s.Key, m.Element)); overlap {
				return fmt.Errorf("set %s has %s, so %s can't join", s.Name, e.Text(s.Key),
					m.Text(s.Key))
			}
		}
		s.Elements[m.Element] = m.Verdict
	}
	return r.resolve()
}

// resolve fails if anything refers to what isn't there.
func (r *Ruleset) resolve() error {
	for _, c := range r.Chains {
		for _, ref := range c.refs() {
			if to := r.Chains[ref.Chain]; ref.Chain != "" && (to == nil || to.Base != nil) {
				return fmt.Errorf("chain %s jumps to %s, which isn't there, or a base chain",
					c.Name, ref.Chain)
			}
			if ref.Set != "" && r.Sets[ref.Set] == nil {
				return fmt.Errorf("chain %s uses set %s, which isn't there", c.Name, ref.Set)
			}
		}
	}
	for _, s := range r.Sets {
		for e, v := range s.Elements {
			if to := r.Chains[v.Chain]; v.Kind == Jump && (to == nil || to.Base != nil) {
				return fmt.Errorf(
					"element %s of %s jumps to %s, which isn't there, or a base chain",
					e.Text(s.Key), s.Name, v.Chain)
			}
		}
	}
	return nil
}

// A history is the state after each transaction; the first is the old state.
type history struct {
	states []*Ruleset
	waits  []int // i: the transaction that makes state i+1 waited
}

// carryOutModel does in the model what Table does with a batch.
func carryOutModel(have *Ruleset, b Batch, most int) (history, error) {
	h := history{states: []*Ruleset{have.Clone()}}
	for _, step := range b.Parts() {
		if step.Wait {
			h.waits = append(h.waits, len(h.states)-1)
		}
		atOnce := most
		if step.Whole {
			atOnce = 0
		}
		for _, ops := range Split(step.Ops, atOnce) {
			next := h.states[len(h.states)-1].Clone()
			for _, op := range ops {
				if err := next.do(op); err != nil {
					return h, fmt.Errorf("%s: %w", op, err)
				}
			}
			h.states = append(h.states, next)
		}
	}
	return h, nil
}

// last is the last generation that a packet can see which entered at one.
func (h history) last(entry int) int {
	for _, i := range h.waits {
		if entry < i {
			return i
		}
	}
	return len(h.states) - 1
}

// A packet of the model has two addresses.
type packet struct{ src, dst netip.Addr }

// An outcome is what can become of a packet in a chain, and the generation of its last lookup. No
// verdict means that it falls off the chain's end.
type outcome struct {
	kind   VerdictKind
	lookup int
	to     netip.Addr // where a NATTo leads
}

// A run judges one packet, whose rules are those of one generation.
type run struct {
	history
	packet
	rules, last int
}

type outcomes map[outcome]bool

// chain returns what can become of a packet that enters a chain after a lookup of that generation.
func (x run) chain(name string, lookup int) outcomes {
	c := x.states[x.rules].Chains[name]
	if c == nil {
		return outcomes{{kind: NoVerdict, lookup: lookup}: true} // made later: empty
	}
	results, at := outcomes{}, map[int]bool{lookup: true}
	for _, r := range c.Rules {
		next := map[int]bool{}
		for l := range at {
			for o := range x.statements(r.Statements, l) {
				switch o.kind {
				case NoVerdict:
					next[o.lookup] = true
				case Return:
					results[outcome{kind: NoVerdict, lookup: o.lookup}] = true
				default:
					results[o] = true
				}
			}
		}
		at = next
	}
	for l := range at {
		results[outcome{kind: NoVerdict, lookup: l}] = true
	}
	return results
}

// statements runs the rest of a rule.
func (x run) statements(list []Statement, lookup int) outcomes {
	if len(list) == 0 {
		return outcomes{{kind: NoVerdict, lookup: lookup}: true}
	}
	switch s := list[0].(type) {
	case MatchAddr:
		if x.value(s.Field) != AddrElement(s.Addr).First {
			return outcomes{{kind: NoVerdict, lookup: lookup}: true}
		}
		return x.statements(list[1:], lookup)
	case InSet:
		results := outcomes{}
		for l := lookup; l <= x.last; l++ {
			if _, ok := x.find(s.Set, s.Fields[0], l); ok {
				maps.Copy(results, x.statements(list[1:], l))
			} else {
				results[outcome{kind: NoVerdict, lookup: l}] = true
			}
		}
		return results
	case Dispatch:
		results := outcomes{}
		for l := lookup; l <= x.last; l++ {
			v, _ := x.find(s.Map, s.Fields[0], l)
			maps.Copy(results, x.verdict(v, l))
		}
		return results
	case DNAT:
		results := outcomes{}
		for l := lookup; l <= x.last; l++ {
			v, ok := x.states[l].natTarget(s.Map, x.dst)
			if !ok {
				results[outcome{kind: NoVerdict, lookup: l}] = true
				continue
			}
			results[outcome{NATTo, l, v}] = true
		}
		return results
	case Do:
		return x.verdict(s.Verdict, lookup)
	}
	panic(fmt.Sprintf("the model knows no %T", list[0]))
}

func (x run) verdict(v Verdict, lookup int) outcomes {
	if v.Kind == Jump {
		return x.chain(v.Chain, lookup)
	}
	return outcomes{{kind: v.Kind, lookup: lookup}: true}
}

func (x run) value(f Field) string {
	if f == SrcAddr4 {
		return AddrElement(x.src).First
	}
	return AddrElement(x.dst).First
}

// find looks a field up in the set that the rules of this run mean, with the elements of a
// generation. A set that is deleted by then has none.
func (x run) find(set string, f Field, lookup int) (Verdict, bool) {
	s := x.states[lookup].Sets[set]
	if s == nil {
		return Verdict{}, false
	}
	for e, v := range s.Elements {
		if value := x.value(f); e.First <= value && value <= e.End() {
			return v, true
		}
	}
	return Verdict{}, false
}

// added is the generation in which a chain appeared: of two base chains at one place, the newer one
// comes later.
func (h history) added(chain string) int {
	return slices.IndexFunc(h.states, func(r *Ruleset) bool { return r.Chains[chain] != nil })
}

// hook returns the generations at which a packet that entered the hook at one can leave all base
// chains accepted. It meets the base chains that were there when it entered, each with the rules of
// the moment.
func (h history) hook(p packet, entry int) bool {
	at := map[int]bool{entry: true}
	for _, c := range h.baseChains(FilterChain, entry) {
		next := map[int]bool{}
		for l := range at {
			for rules := l; rules <= h.last(entry); rules++ {
				for o := range (run{h, p, rules, h.last(entry)}).chain(c.Name, rules) {
					if o.kind == Accept || o.kind == NoVerdict {
						next[o.lookup] = true
					}
				}
			}
		}
		at = next
	}
	return len(at) > 0
}

// baseChains are those of a type that a packet meets which entered the hook at a generation, in
// their order.
func (h history) baseChains(kind ChainType, entry int) []*Chain {
	var chains []*Chain
	for _, c := range h.states[entry].Chains {
		if c.Base != nil && c.Base.Type == kind {
			chains = append(chains, c)
		}
	}
	slices.SortFunc(chains, func(a, b *Chain) int {
		return cmp.Or(a.Base.Priority-b.Base.Priority, h.added(a.Name)-h.added(b.Name))
	})
	return chains
}

// allowed reports whether a steady state lets a packet pass.
func (r *Ruleset) allowed(p packet) bool {
	return history{states: []*Ruleset{r}}.hook(p, 0)
}
