package nft

// growing are the guards that prepare adds elements to.
//
// A packet that looked such a guard up before doesn't meet those elements any more. What it looks
// up later must not allow more than it did then: the old state may deny the packet by that alone,
// and the new one by the guard.
func (pl *planner) growing() map[string]bool {
	guards := map[string]bool{}
	for i := range pl.changes {
		c := &pl.changes[i]
		if c.guard && !c.set.IsMap() && len(c.guardPieces()) > 0 {
			guards[c.set.Name] = true
		}
	}
	return guards
}

// guardBeforeDispatch reports whether a packet can look one of these guards up, and a verdict map
// after that.
func (f fence) guardBeforeDispatch(guards map[string]bool) bool {
	if len(guards) == 0 {
		return false
	}
	o := lookupOrder{fence: f, guards: guards, after: map[visit]bool{}}
	for _, c := range f.pl.have.Chains {
		if c.Base != nil {
			o.follow(visit{c.Name, false})
		}
	}
	return o.found
}

// A visit is a packet in a chain, which has met one of the guards by then, or not.
type visit struct {
	chain string
	met   bool
}

// A lookupOrder follows a packet from lookup to lookup.
type lookupOrder struct {
	fence
	guards map[string]bool
	after  map[visit]bool // whether it has met one when it returns
	found  bool           // a guard's lookup, and a verdict map's after that
}

// follow returns whether the packet has met a guard at the chain's end. What a verdict map leads to
// doesn't count for that: a packet that returns from there finds no other key.
func (o *lookupOrder) follow(v visit) bool {
	if after, known := o.after[v]; known {
		return after
	}
	o.after[v] = v.met // chains have no loops; if one has, it ends here
	met := v.met
	for _, ref := range o.refs(v.chain) {
		if ref.Chain != "" {
			met = o.follow(visit{ref.Chain, met})
		}
		met = met || o.guards[ref.Set]
		if s := o.pl.have.Sets[ref.Set]; s != nil && s.Verdicts {
			o.found = o.found || met
		}
		for _, target := range o.targets(ref.Set) {
			o.follow(visit{target, false})
		}
	}
	o.after[v] = met
	return met
}
