package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// This file makes do without objects that the kernel refuses, so that one of
// them doesn't keep all others from their changes. What refers to it goes as
// well, in the direction that allows less:
//
//   - an element stays away: a packet without a key is dropped at the end of
//     its base chain;
//   - of a set, or a chain that does nothing but accept, the rules go that
//     match it in order to accept, or jump to it;
//   - where a verdict map leads to a chain, it drops.
//
// Whatever can't be left out so (base chains, maps, guards, chains that drop
// and that a rule jumps to, rules of base chains) still fails as a whole.

// LeaveOut makes do without objects: the next Apply writes the table without
// them. It stays so until a patch changes them, or Retry. The error says which
// can't be left out without allowing more; then none of them is.
func (t *Table) LeaveOut(objects ...Object) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := maps.Clone(t.left)
	if left == nil {
		left = map[Object]struct{}{}
	}
	for _, o := range objects {
		left[o] = struct{}{}
	}
	if _, err := reduced(t.desired, left); err != nil {
		return err
	}
	t.left, t.stale = left, true
	return nil
}

// LeftOut lists what the Table makes do without, sorted.
func (t *Table) LeftOut() []Object {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Keys(t.left), compareObjects)
}

// Retry has the next Apply try what was left out.
func (t *Table) Retry() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stale = t.stale || len(t.left) > 0
	t.left = nil
}

// goal is what shall be installed: what is desired without what is left out.
// In the latter case it is a copy.
func (t *Table) goal() (*Ruleset, error) {
	if len(t.left) == 0 {
		return t.desired, nil
	}
	return reduced(t.desired, t.left)
}

// applyWithout is Apply where something is left out. Its cost follows the size
// of the table.
func (t *Table) applyWithout(ctx context.Context, p Patch) error {
	before, err := t.goal()
	if err != nil {
		return err
	}
	t.desired.Merge(p)
	t.forgive(p)
	after, err := t.goal()
	if err != nil {
		t.stale = true
		return err
	}
	return t.carryOut(ctx, Plan(before, Diff(before, after)), nil)
}

// forgive tries again what a patch changes.
func (t *Table) forgive(p Patch) {
	maps.DeleteFunc(t.left, func(o Object, _ struct{}) bool {
		if o.Chain != "" {
			_, changes := p.Chains[o.Chain]
			return changes
		}
		sp, changes := p.Sets[o.Set]
		if !changes || sp == nil || sp.Create != nil || o.Element == (Element{}) {
			return changes
		}
		_, puts := sp.Put[o.Element]
		_, removes := sp.Remove[o.Element]
		return puts || removes
	})
}

// reduced returns a copy of a ruleset without objects, and without what refers to
// them. Objects that aren't there are no matter.
func reduced(r *Ruleset, objects map[Object]struct{}) (*Ruleset, error) {
	out := r.Clone()
	for _, o := range slices.SortedFunc(maps.Keys(objects), compareObjects) {
		if err := out.leaveOut(o); err != nil {
			return nil, fmt.Errorf("%s can't be left out: %w", o, err)
		}
	}
	return out, nil
}

func compareObjects(a, b Object) int {
	switch {
	case a.Chain != b.Chain:
		return cmp.Compare(a.Chain, b.Chain)
	case a.Set != b.Set:
		return cmp.Compare(a.Set, b.Set)
	}
	return compareElements(a.Element, b.Element)
}

func (r *Ruleset) leaveOut(o Object) error {
	switch {
	case o.Chain != "":
		return r.leaveOutChain(o.Chain)
	case r.Sets[o.Set] == nil:
		return nil
	case r.Sets[o.Set].Guard:
		return errGuard
	case o.Element != Element{}:
		delete(r.Sets[o.Set].Elements, o.Element)
		return nil
	}
	return r.leaveOutSet(o.Set)
}

func (r *Ruleset) leaveOutChain(name string) error {
	chain := r.Chains[name]
	if chain == nil {
		return nil
	}
	if chain.Base != nil {
		return errBase
	}
	jumps := func(s Statement) bool { do, is := s.(Do); return is && do.Kind == Jump && do.Chain == name }
	if err := r.dropRules(jumps, func(Rule) bool { return r.onlyAccepts(name, map[string]bool{}) }); err != nil {
		return err
	}
	for _, set := range r.Sets {
		for e, v := range set.Elements {
			if v.Kind == Jump && v.Chain == name {
				set.Elements[e] = Verdict{Kind: Drop}
			}
		}
	}
	delete(r.Chains, name)
	return nil
}

func (r *Ruleset) leaveOutSet(name string) error {
	if r.Sets[name].isMap() {
		return errMap
	}
	matches := func(s Statement) bool { in, is := s.(InSet); return is && in.Set == name }
	accepts := func(rule Rule) bool {
		last, is := rule.Statements[len(rule.Statements)-1].(Do)
		return is && last.Kind == Accept
	}
	if err := r.dropRules(matches, accepts); err != nil {
		return err
	}
	delete(r.Sets, name)
	return nil
}

// dropRules takes away the rules that have a statement, if all of them may go.
func (r *Ruleset) dropRules(has func(Statement) bool, mayGo func(Rule) bool) error {
	for _, c := range r.Chains {
		var stay []Rule
		for _, rule := range c.Rules {
			if !slices.ContainsFunc(rule.Statements, has) {
				stay = append(stay, rule)
				continue
			}
			if c.Base != nil {
				return fmt.Errorf("rule %q of chain %s: %w", rule, c.Name, errBase)
			}
			if !mayGo(rule) {
				return fmt.Errorf("rule %q of chain %s doesn't only accept", rule, c.Name)
			}
		}
		c.Rules = stay
	}
	return nil
}

// onlyAccepts reports whether a packet that is sent to a chain is accepted
// there or comes back as it was.
func (r *Ruleset) onlyAccepts(name string, seen map[string]bool) bool {
	chain := r.Chains[name]
	if chain == nil || seen[name] {
		return true
	}
	seen[name] = true
	for _, rule := range chain.Rules {
		for _, s := range rule.Statements {
			switch s := s.(type) {
			case Do:
				if s.Kind == Drop || s.Kind == Jump && !r.onlyAccepts(s.Chain, seen) {
					return false
				}
			case Dispatch, DNAT, SNAT, Masquerade, NoTrack, ResetTCP, foreign:
				return false
			}
		}
	}
	return true
}

var (
	errBase  = errors.New("a base chain, and what its rules refer to, is for all pods")
	errMap   = errors.New("a map is for all pods")
	errGuard = errors.New("fewer members of a guard allow more")
)
