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

// Closed lists the keys of verdict maps that drop where something was left out, and don't in the
// whole ruleset.
func Closed(whole, left *Ruleset) (out []Object) {
	for name, set := range left.Sets {
		for e, v := range set.Elements {
			if v.Kind == Drop && set.Verdicts && whole.Sets[name].Elements[e].Kind == Jump {
				out = append(out, Object{Set: name, Element: e})
			}
		}
	}
	slices.SortFunc(out, CompareObjects)
	return out
}

func (r *Ruleset) leaveOut(o Object) error {
	if o.Chain != "" {
		return r.leaveOutChain(o.Chain)
	}
	set := r.Sets[o.Set]
	switch {
	case set == nil:
		return nil
	case o.Element != Element{} && (set.IsMap() || r.acceptsOnly(set)):
		delete(set.Elements, o.Element)
		return nil
	}
	return r.leaveOutSet(set)
}

// looksInto reports whether a statement matches the members of a set.
func looksInto(s Statement, set string) bool {
	in, is := s.(InSet)
	return is && in.Set == set
}

// accepts reports whether a rule does nothing but accept.
func (r Rule) accepts() bool {
	last, is := r.Statements[len(r.Statements)-1].(Do)
	return is && last.Kind == Accept
}

// acceptsOnly reports whether rules match the members of a set to accept, and for nothing else.
func (r *Ruleset) acceptsOnly(set *Set) bool {
	for _, c := range r.Chains {
		for _, rule := range c.Rules {
			into := slices.ContainsFunc(rule.Statements, func(s Statement) bool {
				return looksInto(s, set.Name)
			})
			if into && !rule.accepts() {
				return false
			}
		}
	}
	return !set.Guard
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

// leaveOutSet leaves a set out, whole: fewer members of one that isn't matched to accept can allow
// more.
func (r *Ruleset) leaveOutSet(set *Set) error {
	if set.IsMap() {
		return errMap
	}
	matches := func(s Statement) bool { return looksInto(s, set.Name) }
	if err := r.dropRules(matches, Rule.accepts); err != nil {
		if set.Guard {
			return fmt.Errorf("%w: %w", errGuard, err)
		}
		return err
	}
	delete(r.Sets, set.Name)
	return nil
}

// dropRules takes away the rules that have a statement, if all of them may go. Where one may not,
// its chain is left out, and so is what leads there, down to the keys of pods: they drop.
func (r *Ruleset) dropRules(has func(Statement) bool, mayGo func(Rule) bool) error {
	var closed []string
	for _, name := range slices.Sorted(maps.Keys(r.Chains)) {
		c := r.Chains[name]
		var stay []Rule
		goes := true
		for _, rule := range c.Rules {
			if !slices.ContainsFunc(rule.Statements, has) {
				stay = append(stay, rule)
				continue
			}
			if c.Base != nil {
				return fmt.Errorf("rule %q of chain %s: %w", rule, c.Name, errBase)
			}
			goes = goes && mayGo(rule)
		}
		if goes {
			c.Rules = stay
		} else {
			closed = append(closed, name) // with its rules, which say what it does
		}
	}
	for _, name := range closed {
		if err := r.leaveOutChain(name); err != nil {
			return fmt.Errorf("chain %s: %w", name, err)
		}
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
