package nft

import (
	"maps"
	"slices"
)

// A setChange is what a patch does to the elements of an existing set.
type setChange struct {
	set   *Set
	guard bool
	joins []Member  // new keys
	moves []Member  // keys that get another verdict
	stays []Member  // keys that keep their verdict, but have to be written again
	goes  []Element // keys that leave
}

// newSetChange leaves out changes that are done already.
func newSetChange(have *Set, sp *SetPatch) setChange {
	c := setChange{set: have, guard: have.Guard}
	if sp.Create != nil {
		sp = diffSet(have, sp.whole())
		if sp == nil {
			return c
		}
	}
	for _, e := range SortedElements(sp.Put) {
		old, there := have.Elements[e]
		v := sp.Put[e]
		switch {
		case !there:
			c.joins = append(c.joins, Member{e, v})
		case old != v:
			c.moves = append(c.moves, Member{e, v})
		}
	}
	for _, e := range SortedElements(sp.Remove) {
		_, there := have.Elements[e]
		if _, put := sp.Put[e]; there && !put {
			c.goes = append(c.goes, e)
		}
	}
	return c
}

// update applies the patch to the elements of the set: elements that it both removes and puts stay.
func (s *Set) update(sp *SetPatch) {
	for e := range sp.Remove {
		delete(s.Elements, e)
	}
	maps.Copy(s.Elements, sp.Put)
}

// renew has the switch delete and add the key.
func (c *setChange) renew(e Element, v Verdict) {
	if !slices.Contains(c.goes, e) &&
		!slices.ContainsFunc(c.moves, func(m Member) bool { return m.Element == e }) {
		c.stays = append(c.stays, Member{e, v})
	}
}

func (c *setChange) empty() bool {
	return len(c.joins)+len(c.moves)+len(c.stays)+len(c.goes) == 0
}

// op is one undivided change of the set's elements, or none.
func (c *setChange) op(leave []Element, join []Member) []Op {
	if len(leave)+len(join) == 0 {
		return nil
	}
	return []Op{{Kind: SetElements, Set: c.set, Leave: leave, Join: join}}
}

// prepare: guards get their new elements, fenced keys drop.
func (c *setChange) prepare(f fence) []Op {
	if c.set.IsMap() {
		var leave []Element
		var join []Member
		for _, m := range c.moves {
			if f.needed(c.set, m.Element, m.Verdict) {
				leave = append(leave, m.Element)
				join = append(join, Member{m.Element, Verdict{Kind: Drop}})
			}
		}
		for _, e := range c.goes {
			if f.needed(c.set, e, Verdict{}) {
				leave = append(leave, e)
				join = append(join, Member{e, Verdict{Kind: Drop}})
			}
		}
		return c.op(leave, join)
	}
	if c.guard {
		return joinOps(c.set, Plain(c.guardPieces()))
	}
	return nil
}

// switchLeave is the first half of what happens in the switch.
func (c *setChange) switchLeave(f fence) []Op {
	if c.guard && !c.set.IsMap() {
		return nil
	}
	leave := slices.Clone(c.goes)
	if c.set.IsMap() {
		leave = slices.DeleteFunc(leave, func(e Element) bool {
			return f.needed(c.set, e, Verdict{})
		})
		for _, m := range c.moves {
			if !f.needed(c.set, m.Element, m.Verdict) {
				leave = append(leave, m.Element)
			}
		}
		for _, m := range c.stays {
			leave = append(leave, m.Element)
		}
	}
	return leaveOps(c.set, leave)
}

// switchJoin is the second half.
func (c *setChange) switchJoin(f fence) []Op {
	if !c.set.IsMap() {
		if c.guard {
			return nil
		}
		return joinOps(c.set, Plain(c.sharedPieces()))
	}
	join := slices.Clone(c.stays)
	for _, m := range append(slices.Clone(c.moves), c.joins...) {
		if !f.needed(c.set, m.Element, m.Verdict) {
			join = append(join, m)
		}
	}
	return joinOps(c.set, join)
}

// finish: what allows more.
func (c *setChange) finish(f fence) []Op {
	switch {
	case c.set.IsMap():
		return c.finishFenced(f)
	case c.guard:
		return c.finishPieces(c.guardPieces(), c.goes)
	case c.set.Skip:
		return nil
	}
	return c.finishPieces(c.sharedPieces(), nil)
}

func (c *setChange) finishFenced(f fence) []Op {
	var leave []Element
	var join []Member
	for _, m := range c.moves {
		if f.needed(c.set, m.Element, m.Verdict) {
			leave = append(leave, m.Element)
			join = append(join, m)
		}
	}
	for _, e := range c.goes {
		if f.needed(c.set, e, Verdict{}) {
			leave = append(leave, e)
		}
	}
	for _, m := range c.joins {
		if f.needed(c.set, m.Element, m.Verdict) {
			join = append(join, m)
		}
	}
	return c.op(leave, join)
}

// finishPieces replaces the pieces of ranges that an earlier transaction put in by the ranges as
// they shall be. It is undivided where something leaves.
func (c *setChange) finishPieces(pieces, goes []Element) []Op {
	wanted := map[Element]bool{}
	for _, m := range c.joins {
		wanted[m.Element] = true
	}
	leave, there := slices.Clone(goes), map[Element]bool{}
	for _, p := range pieces {
		there[p] = true
		if !wanted[p] {
			leave = append(leave, p)
		}
	}
	join := slices.DeleteFunc(slices.Clone(c.joins), func(m Member) bool {
		return there[m.Element]
	})
	if len(leave) == 0 {
		return joinOps(c.set, join)
	}
	if len(join) == 0 {
		return leaveOps(c.set, leave)
	}
	return c.op(leave, join)
}

// sharedPieces are the ranges that are members before and after, as parts of other elements: they
// stay members throughout. Only interval sets have them.
func (c *setChange) sharedPieces() []Element {
	if !c.set.Interval || len(c.goes) == 0 || len(c.joins) == 0 {
		return nil
	}
	return shared(c.set.Key, slices.Clone(c.goes), elements(c.joins))
}

// guardPieces are the ranges that a guard has to get first: what joins and isn't covered by what
// leaves later.
func (c *setChange) guardPieces() []Element {
	if !c.set.Interval || len(c.goes) == 0 {
		return elements(c.joins)
	}
	return without(c.set.Key, elements(c.joins), c.goes)
}

func elements(list []Member) []Element {
	es := make([]Element, len(list))
	for i, m := range list {
		es[i] = m.Element
	}
	return es
}

// Plain makes members without a verdict of elements.
func Plain(list []Element) []Member {
	ms := make([]Member, len(list))
	for i, e := range list {
		ms[i] = Member{Element: e}
	}
	return ms
}
