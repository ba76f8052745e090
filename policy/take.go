package policy

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// Stage is one tier's part of an isolation: the policies asked, in order, and
// what happens to a flow that none of them decides.
type Stage struct {
	Tier     Tier
	Policies []Key
	End      Verdict
}

// Isolation is what a pod's traffic in one direction goes through, tier by
// tier. Empty: the direction is open.
type Isolation []Stage

// EndpointPolicy is an attachment and what is enforced on it.
type EndpointPolicy struct {
	Endpoint // Addresses are only those that belong to the pod, sorted
	// Self are all addresses of the pod, sorted: it may have more attachments.
	Self            []netip.Addr
	Ingress, Egress Isolation
}

// Isolation returns the endpoint's isolation for a direction.
func (e *EndpointPolicy) Isolation(d Direction) Isolation {
	if d == Egress {
		return e.Egress
	}
	return e.Ingress
}

// SetChange says what became of a set. Add and Remove are in no order.
type SetChange struct {
	Set         Set
	Created     bool
	Deleted     bool // Add and Remove are then empty
	Add, Remove []Member
}

// Changes is the difference between two states of a Cluster. What is named
// in Endpoints and Rules is looked up with Endpoint and Clauses; what isn't
// found there is gone.
type Changes struct {
	Endpoints []string // sorted
	Rules     []Ref    // sorted
	Sets      map[SetID]SetChange

	oneWay map[string]Direction // of Endpoints of which nothing else has changed but the isolation in this direction
}

// Empty reports whether nothing changed.
func (ch *Changes) Empty() bool {
	return len(ch.Endpoints) == 0 && len(ch.Rules) == 0 && len(ch.Sets) == 0
}

// rulesState are the rules of a policy in a direction that local endpoints use.
type rulesState struct {
	users   int // endpoints isolated by it
	clauses []Clause
	active  bool // clauses are told to the caller and their sets acquired
}

// Take returns what changed since the last call.
func (c *Cluster) Take() Changes {
	out := Changes{Sets: map[SetID]SetChange{}, oneWay: map[string]Direction{}}
	c.refillBlocks()
	out.Endpoints = c.takeEndpoints(out.oneWay)
	out.Rules = c.takeRules(out.Sets)
	for id, set := range c.sets {
		if !set.fresh && len(set.before) == 0 {
			continue
		}
		ch := set.take()
		if ch.Created || len(ch.Add)+len(ch.Remove) > 0 {
			out.Sets[id] = ch
		}
	}
	return out
}

// takeEndpoints recompiles the marked endpoints, counts the uses of rules and
// marks those whose use began or ended.
func (c *Cluster) takeEndpoints(oneWay map[string]Direction) []string {
	var changed []string
	for id := range c.dirtyEndpoints {
		old, was := c.compiled[id]
		now, is := c.compile(id)
		if was == is && reflect.DeepEqual(old, now) {
			continue
		}
		changed = append(changed, id)
		if d, ok := onlyIsolation(old, now); ok && was && is {
			oneWay[id] = d
		}
		c.useRules(now, 1)
		c.useRules(old, -1)
		if is {
			c.compiled[id] = now
		} else {
			delete(c.compiled, id)
		}
	}
	clear(c.dirtyEndpoints)
	slices.Sort(changed)
	return changed
}

// onlyIsolation returns the direction whose isolation alone tells two states of an endpoint apart.
func onlyIsolation(old, now EndpointPolicy) (Direction, bool) {
	for _, d := range Directions {
		like := old
		if d == Egress {
			like.Egress = now.Egress
		} else {
			like.Ingress = now.Ingress
		}
		if reflect.DeepEqual(like, now) {
			return d, true
		}
	}
	return 0, false
}

func (c *Cluster) useRules(e EndpointPolicy, delta int) {
	for _, d := range Directions {
		for _, stage := range e.Isolation(d) {
			for _, k := range stage.Policies {
				ref := Ref{k, d}
				if c.rules[ref] == nil {
					c.rules[ref] = &rulesState{}
				}
				c.rules[ref].users += delta
				c.dirtyRules[ref] = struct{}{}
			}
		}
	}
}

// takeRules brings the marked rules in line with their use and their policy.
// Sets are acquired before any is released, so that one which stays in use
// isn't emptied in between.
func (c *Cluster) takeRules(sets map[SetID]SetChange) []Ref {
	var changed []Ref
	var released []Clause
	for ref := range c.dirtyRules {
		state := c.rules[ref]
		if state == nil {
			continue
		}
		active := state.users > 0
		var clauses []Clause
		if active {
			clauses = c.policies[ref.Policy].Clauses(ref.Direction)
		}
		if !active {
			delete(c.rules, ref)
		}
		if active == state.active && reflect.DeepEqual(clauses, state.clauses) {
			continue
		}
		changed = append(changed, ref)
		eachSet(clauses, c.acquire)
		released = append(released, state.clauses...)
		state.clauses, state.active = clauses, active
	}
	clear(c.dirtyRules)
	eachSet(released, func(s *Set) {
		fresh := c.sets[s.ID].fresh
		if c.release(s) && !fresh {
			sets[s.ID] = SetChange{Set: *s, Deleted: true}
		}
	})
	slices.SortFunc(changed, Ref.Compare)
	return changed
}

func eachSet(clauses []Clause, f func(*Set)) {
	for _, cl := range clauses {
		if cl.Peer != nil {
			f(cl.Peer)
		}
		if cl.Named != nil {
			f(cl.Named)
		}
	}
}

// compile works out what is enforced on an endpoint. It is false while the
// pod isn't known: such an endpoint must carry nothing.
func (c *Cluster) compile(id string) (EndpointPolicy, bool) {
	e, ok := c.endpoints[id]
	if !ok {
		return EndpointPolicy{}, false
	}
	rec := c.pods.lookup(e.Pod)
	if !rec.subject() {
		return EndpointPolicy{}, false
	}
	out := EndpointPolicy{Endpoint: e, Self: c.pods.owned(e.Pod)}
	out.Addresses = nil
	for _, a := range out.Self {
		if slices.Contains(e.Addresses, a) {
			out.Addresses = append(out.Addresses, a)
		}
	}
	out.Ingress, out.Egress = c.isolation(e, Ingress), c.isolation(e, Egress)
	return out, true
}

// isolation lists the policies that isolate an endpoint's pod in a direction.
func (c *Cluster) isolation(e Endpoint, d Direction) Isolation {
	var keys []Key
	for s := range c.subjects.Selectors(e.Pod) {
		for k := range c.bySubject[s] {
			if c.policies[k].Section(d) != nil {
				keys = append(keys, k)
			}
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.SortFunc(keys, Key.Compare)
	return Isolation{{Tier: TierNetworkPolicy, Policies: keys, End: Deny}}
}

// Endpoint returns what is enforced on an endpoint, as of the last Take.
func (c *Cluster) Endpoint(id string) (EndpointPolicy, bool) {
	e, ok := c.compiled[id]
	return e, ok
}

// Clauses returns the rules of a policy that some endpoint uses, as of the
// last Take.
func (c *Cluster) Clauses(ref Ref) ([]Clause, bool) {
	r := c.rules[ref]
	if r == nil {
		return nil, false
	}
	return r.clauses, true
}

// All returns the whole state as one Changes, as of the last Take.
func (c *Cluster) All() Changes {
	out := Changes{
		Endpoints: slices.SortedFunc(maps.Keys(c.compiled), strings.Compare),
		Rules:     slices.SortedFunc(maps.Keys(c.rules), Ref.Compare),
		Sets:      map[SetID]SetChange{},
	}
	for id, s := range c.sets {
		ch := SetChange{Set: s.Set, Created: true}
		for m := range s.members {
			ch.Add = append(ch.Add, m)
		}
		out.Sets[id] = ch
	}
	return out
}
