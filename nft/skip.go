package nft

import (
	"maps"
	"slices"
)

// A set that rules match to return is neither matched to accept nor to drop: its members skip the
// rest of the chain, and what comes after it may allow more than that, or less. So its elements
// change in two steps of their own. In between all are members that are one in the old state or the
// new one: whoever is let through by what comes after the chain is let through by it in that state,
// too, since by then every other set allows only what both states allow.
//
//	prepare  guards get their new members
//	widen    the set gets its new members; all others lose those that leave
//	switch   rules, and keys of verdict maps
//	narrow   the set loses those that leave
//	finish   all others get their new members; guards lose those that leave
//
// Each waits for packets under way where one could meet too much of two steps.
//
// What comes after the chain must not change meanwhile: "the old state" and "the new one" are about
// the whole way of a packet. So keys that lead through such a set, or will, drop from prepare to
// finish if they change, or if rules do that a packet with this key can meet.

// skips are the sets of a patch that are skipped by, and change.
type skips struct {
	pl     *planner
	sets   map[string]bool
	change bool // there are some
	lose   bool // some of them lose members
	behind map[string]bool
}

func newSkips(pl *planner) skips {
	out := skips{pl: pl, sets: map[string]bool{}, behind: map[string]bool{}}
	for i := range pl.changes {
		if c := &pl.changes[i]; c.set.Skip {
			out.sets[c.set.Name], out.change = true, true
			out.lose = out.lose || len(c.goes) > 0
		}
	}
	return out
}

// reached reports whether a packet that is sent to the chain can meet one of the sets.
func (s skips) reached(chain string) bool {
	if reached, known := s.behind[chain]; known || !s.change || chain == "" {
		return reached
	}
	s.behind[chain] = false // chains have no loops; if one has, it ends here
	reached := false
	for _, version := range [...]*Chain{s.pl.have.Chains[chain], s.pl.patch.Chains[chain]} {
		if version == nil {
			continue
		}
		for _, ref := range version.refs() {
			reached = reached || s.sets[ref.Set] || s.reached(ref.Chain)
			for _, target := range s.pl.fence.targets(ref.Set) {
				reached = reached || s.reached(target)
			}
		}
	}
	s.behind[chain] = reached
	return reached
}

// fences reports whether a key that changes has to drop meanwhile: it leads through one of the
// sets, or will. A new key where the sets only grow needn't wait: it is added when they have grown.
func (s skips) fences(m *Set, key Element, now Verdict) bool {
	old, there := m.Elements[key]
	if !s.change || !there && !s.lose {
		return false
	}
	return s.reached(old.Chain) || s.reached(now.Chain)
}

// holdKeys has keys that stay drop meanwhile, which lead through one of the sets to rules that
// change, or past them.
func (pl *planner) holdKeys() {
	if !pl.skips.change {
		return
	}
	rules := len(pl.changedRules) > 0
	hooks := pl.hooksChange()
	if !rules && !hooks {
		return
	}
	changes := map[string]int{}
	for i := range pl.changes {
		changes[pl.changes[i].set.Name] = i
	}
	for _, name := range slices.Sorted(maps.Keys(pl.have.Sets)) {
		m := pl.have.Sets[name]
		if sp, changed := pl.patch.Sets[name]; !m.Verdicts || changed && sp == nil ||
			pl.targets[Ref{Set: name}] {
			continue
		}
		i, known := changes[name]
		var held []Member
		for _, e := range SortedElements(m.Elements) {
			v := m.Elements[e]
			if pl.skips.reached(v.Chain) && (!known || !pl.changes[i].touches(e)) &&
				(hooks || pl.fence.changedBehind(v.Chain) || pl.fence.changedBeside(m)) {
				held = append(held, Member{e, v})
			}
		}
		switch {
		case len(held) == 0:
		case known:
			pl.changes[i].moves = append(pl.changes[i].moves, held...)
		default:
			pl.changes = append(pl.changes, setChange{set: m, guard: m.Guard, moves: held})
		}
	}
}

// touches reports whether a key changes, or is written again.
func (c *setChange) touches(e Element) bool {
	is := func(m Member) bool { return m.Element == e }
	return slices.Contains(c.goes, e) || slices.ContainsFunc(c.moves, is) ||
		slices.ContainsFunc(c.stays, is)
}

// widen adds to the sets that are skipped by, and takes from all others but guards.
func (pl *planner) widen() {
	if !pl.skips.change {
		return
	}
	for i := range pl.changes {
		switch c := &pl.changes[i]; {
		case c.set.Skip:
			pl.batch.Widen = append(pl.batch.Widen, joinOps(c.set, c.joins)...)
		case !c.set.IsMap():
			pl.batch.Widen = append(pl.batch.Widen, c.switchLeave(pl.fence)...)
			pl.batch.Widen = append(pl.batch.Widen, c.switchJoin(pl.fence)...)
		}
	}
}

// narrow takes from the sets that are skipped by.
func (pl *planner) narrow() {
	for i := range pl.changes {
		if c := &pl.changes[i]; c.set.Skip {
			pl.batch.Narrow = append(pl.batch.Narrow, leaveOps(c.set, c.goes)...)
		}
	}
}
