package cluster

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/policy"
)

// Affected lists ends of flows whose verdict on this node may have changed: every such flow has one
// of them.
type Affected struct {
	// Tightened flows may be denied now, or allowed.
	Tightened Ends
	// Loosened ones can only have become allowed.
	Loosened Ends
}

// Empty reports whether no flow is affected.
func (a *Affected) Empty() bool { return len(a.Tightened)+len(a.Loosened) == 0 }

// Add joins what o says.
func (a *Affected) Add(o Affected) {
	join := func(to *Ends, from Ends) {
		if *to == nil {
			*to = Ends{}
		}
		to.Add(from)
	}
	join(&a.Tightened, o.Tightened)
	join(&a.Loosened, o.Loosened)
}

// Affected returns what changes that Take has just returned mean for flows that exist. A pod's own
// rules concern all of its flows in their direction; a member of a set only those of the member's
// address.
func (c *Cluster) Affected(ch Changes) Affected {
	out := Affected{Tightened: Ends{}, Loosened: Ends{}}
	rules := map[policy.Ref]bool{}
	for _, ref := range ch.Rules {
		rules[ref] = true
	}
	users := c.users(ch.Sets)
	for id, set := range ch.Sets {
		if set.Created || set.Deleted {
			continue // the rules that use it have changed
		}
		if id.Kind == policy.BlockSet {
			for ref := range users[id] {
				rules[ref] = true
			}
			continue
		}
		role := memberRole(id, users[id])
		joins, leaves := out.Loosened, out.Tightened
		switch id.For {
		case policy.Deny:
			joins, leaves = leaves, joins
		case policy.Pass: // the next tier may allow less, or more
			joins = leaves
		case policy.Accept:
		}
		for _, m := range set.Remove {
			leaves[m.First] |= role
		}
		for _, m := range set.Add {
			joins[m.First] |= role
		}
	}
	for _, id := range ch.Endpoints {
		role := AsSource | AsDestination
		if d, ok := ch.oneWay[id]; ok {
			role = subjectEnd(d)
		}
		out.tighten(c.compiled[id].Addresses, role)
	}
	if len(rules) > 0 {
		for _, e := range c.compiled {
			out.tighten(e.Addresses, e.uses(rules))
		}
	}
	return out
}

func (a *Affected) tighten(addrs []netip.Addr, role Role) {
	if role == 0 {
		return
	}
	for _, addr := range addrs {
		a.Tightened[addr] |= role
	}
}

// users lists the rules that refer to each of the sets which have got or lost members.
func (c *Cluster) users(sets map[policy.SetID]SetChange) map[policy.SetID]map[policy.Ref]bool {
	out := map[policy.SetID]map[policy.Ref]bool{}
	for id, set := range sets {
		if !set.Created && !set.Deleted {
			out[id] = map[policy.Ref]bool{}
		}
	}
	if len(out) == 0 {
		return out
	}
	for ref, state := range c.rules {
		for _, part := range state.parts {
			eachSet(part, func(s *policy.Set) {
				if refs := out[s.ID]; refs != nil {
					refs[ref] = true
				}
			})
		}
	}
	return out
}

// memberRole is which end of flows the members of a set are to the rules that refer to it. Those of
// named ports are always who is connected to.
func memberRole(id policy.SetID, refs map[policy.Ref]bool) (role Role) {
	if id.Kind != policy.PodSet {
		return AsDestination
	}
	for ref := range refs {
		role |= peerEnd(ref.Direction)
	}
	return role
}

// uses returns which end of flows the endpoint is to those of the rules that isolate it, if any.
func (e *EndpointPolicy) uses(rules map[policy.Ref]bool) (role Role) {
	for _, d := range policy.Directions {
		for _, stage := range e.Isolation(d) {
			used := func(ref policy.Ref) bool { return rules[ref] }
			if slices.ContainsFunc(stage.Rules, used) {
				role |= subjectEnd(d)
			}
		}
	}
	return role
}
