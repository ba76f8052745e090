package cluster

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// Stage is one tier's part of an isolation: the policies asked, and what happens to a flow that
// none of them decides. In the tier of NetworkPolicies their order doesn't matter; in the others
// the first rule that matches counts.
type Stage struct {
	Tier     policy.Tier
	Policies []policy.Key
	Rules    []policy.Ref // of these policies: sorted, or in the order in which they are asked
	End      policy.Verdict
}

// Isolation is what a pod's traffic in one direction goes through, tier by tier. Empty: the
// direction is open.
type Isolation []Stage

// EndpointPolicy is an attachment and what is enforced on it.
type EndpointPolicy struct {
	policy.Endpoint // Addresses are only those that the pod's policies govern, sorted
	// Self are all addresses that the pod has, sorted: it may have more attachments.
	Self            []netip.Addr
	Ingress, Egress Isolation
}

// Isolation returns the endpoint's isolation for a direction.
func (e *EndpointPolicy) Isolation(d policy.Direction) Isolation {
	if d == policy.Egress {
		return e.Egress
	}
	return e.Ingress
}

// SetChange says what became of a set. Add and Remove are in no order.
type SetChange struct {
	Set         policy.Set
	Created     bool
	Deleted     bool // Add and Remove are then empty
	Add, Remove []policy.Member
}

// Changes is the difference between two states of a Cluster. What is named in Endpoints and Rules
// is looked up with Endpoint and Parts; what isn't found there is gone.
type Changes struct {
	Endpoints []string     // sorted
	Rules     []policy.Ref // sorted
	Sets      map[policy.SetID]SetChange
	// Left are addresses that pods have no longer because of what their nodes say now, sorted.
	// Those that pods leave by themselves aren't among them.
	Left []netip.Addr

	// oneWay has those of Endpoints of which nothing has changed but the isolation in a direction.
	oneWay map[string]policy.Direction
}

// Empty reports whether nothing changed.
func (ch *Changes) Empty() bool {
	return len(ch.Endpoints) == 0 && len(ch.Rules) == 0 && len(ch.Sets) == 0
}

// Everything is a budget without limit, see TakeSome.
const Everything = math.MaxInt

// Take returns what changed since the last call.
func (c *Cluster) Take() Changes { return c.TakeSome(Everything) }

// TakeSome returns what changed since the last call, but of new rules, of what joins sets and of
// sets to delete only as much as the budget says, in members of sets; a rule counts for many. What
// is left waits for the next call, and Backlog says so.
//
// Whatever takes something away comes at once: an endpoint under its policies, rules that a policy
// no longer has, members that leave. So every state in between allows only what the last one
// allows. The smallest come first, so that what little others need doesn't wait behind something
// huge.
func (c *Cluster) TakeSome(budget int) Changes {
	out := Changes{Sets: map[policy.SetID]SetChange{}, oneWay: map[string]policy.Direction{}}
	c.settle()
	out.Left = c.takeLeft()
	out.Endpoints = c.takeEndpoints(out.oneWay)
	rules, members := budget, budget
	out.Rules = c.takeRules(&rules)
	c.freeSets(out.Sets, &rules)
	c.takeSets(out.Sets, &members)
	return out
}

// Backlog reports whether the last TakeSome left something.
func (c *Cluster) Backlog() bool { return len(c.dirtyRules)+len(c.unused)+c.unfilled > 0 }

// Waiting reports whether rules of the policies that isolate an endpoint are among what the last
// TakeSome left: so far they allow less than they say.
func (c *Cluster) Waiting(id string) bool {
	e := c.compiled[id]
	waits := false
	e.eachRef(func(ref policy.Ref) {
		_, dirty := c.dirtyRules[ref]
		waits = waits || dirty
	})
	return waits
}

// takeSets takes what became of the sets' members; those with little to add come first.
func (c *Cluster) takeSets(sets map[policy.SetID]SetChange, budget *int) {
	var changed []*setState
	for _, set := range c.sets {
		if set.fresh || set.untold() > 0 {
			changed = append(changed, set)
		}
	}
	slices.SortFunc(changed, func(a, b *setState) int {
		return cmp.Compare(a.untold(), b.untold())
	})
	c.unfilled = 0
	for _, set := range changed {
		ch := set.take(budget)
		if len(set.waiting) > 0 {
			c.unfilled++
		}
		if ch.Created || len(ch.Add)+len(ch.Remove) > 0 {
			sets[set.ID] = ch
		}
	}
}

func (c *Cluster) takeLeft() []netip.Addr {
	maps.DeleteFunc(c.left, func(a netip.Addr, _ struct{}) bool {
		return c.pods.peer(a) != nil // again
	})
	out := slices.SortedFunc(maps.Keys(c.left), netip.Addr.Compare)
	clear(c.left)
	return out
}

// takeEndpoints recompiles the marked endpoints, counts the uses of rules and marks those whose use
// began or ended.
func (c *Cluster) takeEndpoints(oneWay map[string]policy.Direction) []string {
	var changed []string
	namespaces := map[string]struct{}{}
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
		namespaces[old.Pod.Namespace] = struct{}{}
		if is {
			c.compiled[id] = now
		} else {
			delete(c.compiled, id)
		}
	}
	clear(c.dirtyEndpoints)
	for namespace := range namespaces {
		c.restore(namespace, false)
	}
	slices.Sort(changed)
	return changed
}

// onlyIsolation returns the direction whose isolation alone tells two states of an endpoint apart.
func onlyIsolation(old, now EndpointPolicy) (policy.Direction, bool) {
	for _, d := range policy.Directions {
		like := old
		if d == policy.Egress {
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

// useRules counts uses of rules.
func (c *Cluster) useRules(e EndpointPolicy, delta int) {
	e.eachRef(func(ref policy.Ref) {
		if c.rules[ref] == nil {
			c.rules[ref] = &rulesState{}
		}
		c.rules[ref].users += delta
		c.dirtyRules[ref] = struct{}{}
	})
}

// eachRef calls f for all rules that isolate the endpoint.
func (e *EndpointPolicy) eachRef(f func(policy.Ref)) {
	for _, d := range policy.Directions {
		for _, stage := range e.Isolation(d) {
			for _, ref := range stage.Rules {
				f(ref)
			}
		}
	}
}

// compile works out what is enforced on an endpoint. It is false while the pod isn't known, or its
// namespace where that counts: such an endpoint must carry nothing.
func (c *Cluster) compile(id string) (EndpointPolicy, bool) {
	e, ok := c.endpoints[id]
	if !ok {
		return EndpointPolicy{}, false
	}
	rec := c.pods.find(e.Pod)
	if !c.enforced(rec) {
		return EndpointPolicy{}, false
	}
	out := EndpointPolicy{Endpoint: e, Self: c.pods.own(rec)}
	out.Addresses = nil
	for _, a := range c.pods.governed(rec) {
		if slices.Contains(e.Addresses, a) {
			out.Addresses = append(out.Addresses, a)
		}
	}
	out.Ingress = c.isolation(rec.number, policy.Ingress)
	out.Egress = c.isolation(rec.number, policy.Egress)
	return out, true
}

// isolation lists the policies that have a say on a pod in a direction. Those of the Baseline tier
// have none where NetworkPolicies isolate it.
func (c *Cluster) isolation(n selector.Number, d policy.Direction) Isolation {
	var ordered []*policy.Policy
	stage := Stage{Tier: policy.TierNetworkPolicy, End: policy.Deny}
	for s := range c.subjects.Selectors(n) {
		stage.Rules = append(stage.Rules, c.rulesOf(s, d)...)
		ordered = append(ordered, c.orderedOf(s, d)...)
	}
	byTier := inTiers(ordered)
	out := c.orderedStage(nil, byTier[policy.TierAdmin], d, policy.Pass)
	if len(stage.Rules) == 0 {
		return c.orderedStage(out, byTier[policy.TierBaseline], d, policy.Accept)
	}
	slices.SortFunc(stage.Rules, policy.Ref.Compare)
	for _, ref := range stage.Rules {
		stage.Policies = append(stage.Policies, c.PoliciesOf(ref)...)
	}
	slices.SortFunc(stage.Policies, policy.Key.Compare)
	return append(out, stage)
}

// orderedStage appends a tier's stage, if it has policies.
func (c *Cluster) orderedStage(to Isolation, policies []*policy.Policy, d policy.Direction,
	end policy.Verdict) Isolation {
	if len(policies) == 0 {
		return to
	}
	stage := Stage{Tier: policies[0].Tier, End: end}
	for _, p := range policies {
		stage.Policies = append(stage.Policies, p.Key)
		stage.Rules = append(stage.Rules, policy.Ref{Policy: p.Key, Direction: d})
	}
	return append(to, stage)
}

// Endpoint returns what is enforced on an endpoint, as of the last Take.
func (c *Cluster) Endpoint(id string) (EndpointPolicy, bool) {
	e, ok := c.compiled[id]
	return e, ok
}

// Parts returns the rules of a Ref that some endpoint uses, as of the last Take, in the parts in
// which TakeSome brings them: one, unless there is a lot. Those of a ClusterNetworkPolicy are in
// their order, in one part.
func (c *Cluster) Parts(ref policy.Ref) ([][]policy.Clause, bool) {
	r := c.rules[ref]
	if r == nil {
		return nil, false
	}
	return r.parts, true
}

// All returns the whole state as one Changes, as of the last Take.
func (c *Cluster) All() Changes {
	out := Changes{
		Endpoints: slices.SortedFunc(maps.Keys(c.compiled), strings.Compare),
		Rules:     slices.SortedFunc(maps.Keys(c.rules), policy.Ref.Compare),
		Sets:      map[policy.SetID]SetChange{},
	}
	for id, s := range c.sets {
		ch := SetChange{Set: s.Set, Created: true}
		seen := make(map[policy.Member]bool, s.size)
		for m := range c.members(s) {
			if !seen[m] {
				seen[m] = true
				ch.Add = append(ch.Add, m)
			}
		}
		out.Sets[id] = ch
	}
	return out
}
