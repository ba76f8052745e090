package nft

import "fmt"

// A Patch is a change of a ruleset.
type Patch struct {
	Chains map[string]*Chain    // the chain as it shall be; nil: delete it
	Sets   map[string]*SetPatch // nil: delete the set
}

// A SetPatch is a change of one set.
type SetPatch struct {
	// Create is the wanted set, with its elements, where it is new or its definition changes; nil
	// for a set that stays. The Patch owns it.
	Create *Set

	Put    map[Element]Verdict  // elements that join, or get another verdict
	Remove map[Element]struct{} // elements that leave; those that aren't there are ignored
}

// Empty reports whether the patch changes nothing.
func (p *Patch) Empty() bool {
	if len(p.Chains) > 0 {
		return false
	}
	for _, s := range p.Sets {
		if s == nil || s.Create != nil || len(s.Put) > 0 || len(s.Remove) > 0 {
			return false
		}
	}
	return true
}

// Diff returns the patch that makes have into want. The patch shares chains and new sets with want.
func Diff(have, want *Ruleset) Patch {
	p := Patch{Chains: map[string]*Chain{}, Sets: map[string]*SetPatch{}}
	for name := range have.Chains {
		if want.Chains[name] == nil {
			p.Chains[name] = nil
		}
	}
	for name, chain := range want.Chains {
		if old := have.Chains[name]; old == nil || !old.Equal(chain) {
			p.Chains[name] = chain
		}
	}
	for name := range have.Sets {
		if want.Sets[name] == nil {
			p.Sets[name] = nil
		}
	}
	for name, set := range want.Sets {
		if sp := diffSet(have.Sets[name], set); sp != nil {
			p.Sets[name] = sp
		}
	}
	return p
}

// diffSet returns nil where nothing changes. Comments aren't compared: the kernel can't change
// them.
func diffSet(have, want *Set) *SetPatch {
	if have == nil || !have.SameShape(want) {
		return &SetPatch{Create: want}
	}
	sp := &SetPatch{Put: map[Element]Verdict{}, Remove: map[Element]struct{}{}}
	for e, v := range want.Elements {
		if old, ok := have.Elements[e]; !ok || old != v {
			sp.Put[e] = v
		}
	}
	for e := range have.Elements {
		if _, ok := want.Elements[e]; !ok {
			sp.Remove[e] = struct{}{}
		}
	}
	if len(sp.Put) == 0 && len(sp.Remove) == 0 {
		return nil
	}
	return sp
}

// Merge changes r as the patch says, and takes ownership of what is in it.
func (r *Ruleset) Merge(p Patch) {
	for name, chain := range p.Chains {
		if chain == nil {
			delete(r.Chains, name)
			continue
		}
		r.Chains[name] = chain
	}
	for name, sp := range p.Sets {
		if sp == nil {
			delete(r.Sets, name)
			continue
		}
		if sp.Create != nil {
			r.Sets[name] = sp.Create.clone()
		}
		set := r.Sets[name]
		if set == nil {
			continue // a change of a set that isn't there
		}
		set.update(sp)
	}
}

// Check refuses an inconsistent patch: names that don't agree, or a change of a missing set.
func (p Patch) Check(have *Ruleset) error {
	for name, c := range p.Chains {
		if c != nil && c.Name != name {
			return fmt.Errorf("chain %s is called %s in the patch", c.Name, name)
		}
	}
	for name, sp := range p.Sets {
		switch {
		case sp == nil:
		case sp.Create != nil && sp.Create.Name != name:
			return fmt.Errorf("set %s is called %s in the patch", sp.Create.Name, name)
		case sp.Create == nil && have.Sets[name] == nil:
			return fmt.Errorf("set %s is to be changed, but isn't there", name)
		}
	}
	return nil
}
