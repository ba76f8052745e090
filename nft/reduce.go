package nft

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Without returns a copy of a ruleset without objects, and without references to them. Missing
// objects are ignored.
func Without(r *Ruleset, objects map[Object]struct{}) (*Ruleset, error) {
	out := r.Clone()
	for _, o := range slices.SortedFunc(maps.Keys(objects), CompareObjects) {
		if err := out.leaveOut(o); err != nil {
			return nil, fmt.Errorf("%s can't be left out: %w", o, err)
		}
	}
	return out, nil
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
	jumps := func(s Statement) bool {
		do, is := s.(Do)
		return is && do.Kind == Jump && do.Chain == name
	}
	err := r.dropRules(jumps, func(Rule) bool { return r.onlyAccepts(name, map[string]bool{}) })
	if err != nil {
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
	if r.Sets[name].IsMap() {
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

// onlyAccepts reports whether a packet that is sent to a chain is accepted there or comes back as
// it was.
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
			case Dispatch, DNAT, SNAT, Masquerade, NoTrack, ResetTCP, Foreign:
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
