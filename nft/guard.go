package nft

// growing are the guards that prepare adds elements to, and the sets that widen does.
//
// A packet that looked such a guard up before doesn't meet those elements any more. What it looks
// up later must not allow more than it did then: the old state may deny the packet by that alone,
// and the new one by the guard.
func (pl *planner) growing() map[string]bool {
	guards := map[string]bool{}
	for i := range pl.changes {
		c := &pl.changes[i]
		if c.guard && !c.set.IsMap() && len(c.guardPieces()) > 0 ||
			c.set.Skip && len(c.joins) > 0 {
			guards[c.set.Name] = true
		}
	}
	return guards
}

// changeBehind reports whether a map, or any set at all, changes that a packet can look up after it
// has missed a guard which grows.
func (pl *planner) changeBehind() (inMap, inAny bool) {
	guards := pl.growing()
	if len(guards) == 0 {
		return false, false
	}
	behind := map[string]bool{}
	for _, family := range []int{4, 6} {
		o := lookupOrder{fence: pl.fence, family: family, guards: guards, behind: behind,
			missed: map[visit]bool{}}
		for _, c := range pl.have.Chains {
			if c.Base != nil {
				o.follow(visit{c.Name, false})
			}
		}
	}
	for i := range pl.changes {
		set := pl.changes[i].set
		if !behind[set.Name] {
			continue
		}
		inAny = true
		inMap = inMap || set.IsMap()
	}
	return inMap, inAny
}

// A visit is a packet in a chain, which has missed one of the guards by then, or not.
type visit struct {
	chain string
	miss  bool
}

// A lookupOrder follows a packet of one IP version from lookup to lookup.
type lookupOrder struct {
	fence
	family int
	guards map[string]bool
	behind map[string]bool // sets that are looked up after a miss
	missed map[visit]bool  // whether a packet that comes back from there can have missed one
}

// follow returns whether a packet that comes back from the chain can have missed a guard. Whoever
// meets the guard's match doesn't miss it: so a rule that returns by it takes nobody back who did.
func (o *lookupOrder) follow(v visit) (back bool) {
	if back, known := o.missed[v]; known {
		return back
	}
	o.missed[v] = v.miss // chains have no loops; if one has, it ends here
	miss := v.miss
	for _, r := range o.rules(v.chain) {
		if f := r.family(); f != 0 && f != o.family {
			continue
		}
		before := miss
		miss = o.through(r, miss)
		last, _ := r.Statements[len(r.Statements)-1].(Do)
		switch {
		case last.Kind == Return:
			back = back || before
		case (last.Kind == Accept || last.Kind == Drop) && r.forAll():
			o.missed[v] = back
			return back // nothing comes to the chain's end
		}
	}
	back = back || miss
	o.missed[v] = back
	return back
}

// through returns whether a packet that goes on after the rule can have missed a guard.
func (o *lookupOrder) through(r Rule, miss bool) bool {
	for ref := range r.refs() {
		if miss && ref.Set != "" {
			o.behind[ref.Set] = true
		}
		if ref.Chain != "" {
			miss = o.follow(visit{ref.Chain, miss}) || miss && !r.forAll()
		}
		for _, target := range o.targets(ref.Set) {
			o.follow(visit{target, miss})
		}
		miss = miss || o.guards[ref.Set]
	}
	return miss
}

// forAll reports whether the rule matches every packet.
func (r Rule) forAll() bool { return len(r.Statements) == 1 }

// family is the IP version of the packets that the rule looks at; 0: of either.
func (r Rule) family() int {
	for _, s := range r.Statements {
		var fields []Field
		switch s := s.(type) {
		case InSet:
			fields = s.Fields
		case Dispatch:
			fields = s.Fields
		case DNAT:
			fields = s.Fields
		}
		for _, f := range fields {
			if family := f.Family(); family != 0 {
				return family
			}
		}
	}
	return 0
}
