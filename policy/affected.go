package policy

import (
	"maps"
	"net/netip"
	"slices"
)

// Affected lists ends of flows whose verdict on this node may have changed: every such flow has one of the addresses.
type Affected struct {
	// Tightened flows may be denied now, or allowed.
	Tightened map[netip.Addr]struct{}
	// Loosened ones can only have become allowed.
	Loosened map[netip.Addr]struct{}
}

// Empty reports whether no flow is affected.
func (a *Affected) Empty() bool { return len(a.Tightened)+len(a.Loosened) == 0 }

// Add joins what o says.
func (a *Affected) Add(o Affected) {
	join := func(to *map[netip.Addr]struct{}, from map[netip.Addr]struct{}) {
		if *to == nil {
			*to = map[netip.Addr]struct{}{}
		}
		maps.Copy(*to, from)
	}
	join(&a.Tightened, o.Tightened)
	join(&a.Loosened, o.Loosened)
}

// Affected returns what changes that Take has just returned mean for flows that exist. A pod's own rules concern all of its flows; a
// member of a set only those of the member's address.
func (c *Cluster) Affected(ch Changes) Affected {
	out := Affected{Tightened: map[netip.Addr]struct{}{}, Loosened: map[netip.Addr]struct{}{}}
	rules := map[Ref]bool{}
	for _, ref := range ch.Rules {
		rules[ref] = true
	}
	blocks := map[SetID]bool{}
	for id, set := range ch.Sets {
		if set.Created || set.Deleted {
			continue // the rules that use it have changed
		}
		if id.Kind == BlockSet {
			blocks[id] = true
			continue
		}
		for _, m := range set.Remove {
			out.Tightened[m.First] = struct{}{}
		}
		for _, m := range set.Add {
			out.Loosened[m.First] = struct{}{}
		}
	}
	if len(blocks) > 0 {
		c.usersOf(blocks, rules)
	}
	for _, id := range ch.Endpoints {
		out.tighten(c.compiled[id].Addresses)
	}
	if len(rules) > 0 {
		for _, e := range c.compiled {
			if e.uses(rules) {
				out.tighten(e.Addresses)
			}
		}
	}
	return out
}

func (a *Affected) tighten(addrs []netip.Addr) {
	for _, addr := range addrs {
		a.Tightened[addr] = struct{}{}
	}
}

// usersOf adds to rules those that refer to one of the sets.
func (c *Cluster) usersOf(sets map[SetID]bool, rules map[Ref]bool) {
	for ref, state := range c.rules {
		eachSet(state.clauses, func(s *Set) {
			if sets[s.ID] {
				rules[ref] = true
			}
		})
	}
}

// uses reports whether the endpoint is isolated by one of the rules.
func (e *EndpointPolicy) uses(rules map[Ref]bool) bool {
	for _, d := range Directions {
		for _, stage := range e.Isolation(d) {
			if slices.ContainsFunc(stage.Policies, func(k Key) bool { return rules[Ref{k, d}] }) {
				return true
			}
		}
	}
	return false
}

// LocalAddresses lists the addresses of all endpoints, as of the last Take.
func (c *Cluster) LocalAddresses() []netip.Addr {
	var out []netip.Addr
	for _, e := range c.compiled {
		out = append(out, e.Addresses...)
	}
	return out
}
