package nft

import (
	"maps"
	"slices"
)

// This file handles objects that the switch has to delete and create again, because the kernel
// can't change their definition. That only happens after another program has edited the table. All
// references to such a target have to go first, and new objects must not refer to it before it is
// new. It is as safe as it can be: all of it is one transaction; base chains have a twin, unless
// they refer to a target themselves; a guard set is empty for packets that are under way.

func (pl *planner) noteTargets() {
	pl.targets = map[Ref]bool{}
	for _, c := range pl.replaced {
		pl.targets[Ref{Chain: c.Name}] = true
	}
	for _, s := range pl.replacedSets {
		pl.targets[Ref{Set: s.Name}] = true
	}
}

func (pl *planner) refersToTarget(c *Chain) bool {
	return len(pl.targets) > 0 && slices.ContainsFunc(c.refs(), func(r Ref) bool {
		return pl.targets[r]
	})
}

func (pl *planner) leadsToTarget(s *Set) bool {
	if len(pl.targets) == 0 {
		return false
	}
	for _, v := range s.Elements {
		if pl.targets[Ref{Chain: v.Chain}] {
			return true
		}
	}
	return false
}

// rewriteReferrers removes the references from chains and keys that the patch leaves alone.
func (pl *planner) rewriteReferrers() {
	if len(pl.targets) == 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(pl.have.Chains)) {
		c := pl.have.Chains[name]
		if want, ok := pl.patch.Chains[name]; ok && (want == nil || !want.Equal(c)) {
			continue
		}
		if pl.refersToTarget(c) {
			pl.rewritten = append(pl.rewritten, c)
		}
	}
	index := map[string]int{}
	for i, c := range pl.changes {
		index[c.set.Name] = i
	}
	for _, name := range slices.Sorted(maps.Keys(pl.have.Sets)) {
		set := pl.have.Sets[name]
		if sp, ok := pl.patch.Sets[name]; ok && sp == nil || pl.targets[Ref{Set: name}] ||
			!pl.leadsToTarget(set) {
			continue
		}
		i, ok := index[name]
		if !ok {
			pl.changes = append(pl.changes, setChange{set: set, guard: set.Guard})
			i = len(pl.changes) - 1
		}
		for _, e := range SortedElements(set.Elements) {
			if v := set.Elements[e]; pl.targets[Ref{Chain: v.Chain}] {
				pl.changes[i].renew(e, v)
			}
		}
	}
}

// releaseTargets empties objects that refer to a target now, and go or move later.
func (pl *planner) releaseTargets() []Op {
	var ops []Op
	for _, list := range [][]*Chain{pl.removed, pl.reseated, pl.dropped} {
		for _, c := range list {
			if old := pl.have.Chains[c.Name]; pl.refersToTarget(old) {
				ops = append(ops, Op{Kind: FlushChain, Chain: old})
			}
		}
	}
	for _, s := range pl.removedSets {
		if pl.leadsToTarget(s) {
			ops = append(ops,
				leaveOps(s, slices.SortedFunc(maps.Keys(s.Elements), compareElements))...)
		}
	}
	return ops
}

// lateOps fill the new objects that refer to a target.
func (pl *planner) lateOps() []Op {
	var ops []Op
	for _, s := range pl.addedSets {
		if pl.leadsToTarget(s) {
			ops = append(ops, joinOps(s, members(s))...)
		}
	}
	for _, c := range pl.added {
		if pl.refersToTarget(c) {
			ops = append(ops, ruleOps(c)...)
		}
	}
	for _, c := range pl.reseated {
		if pl.refersToTarget(c) {
			ops = append(ops, ruleOps(pl.twin(c))...)
		}
	}
	return ops
}
