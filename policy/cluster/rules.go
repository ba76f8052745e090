package cluster

import (
	"cmp"
	"hash/fnv"
	"maps"
	"slices"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// rulesState are the rules of a Ref that local endpoints use.
type rulesState struct {
	users int               // endpoints isolated by it
	told  bool              // the caller knows of it
	parts [][]policy.Clause // what the caller was told; their sets are in use
	want  [][]policy.Clause // what policies say
	of    []*policy.Policy  // those policies
}

// wanted are the parts of the rules as the policies have them; others says that these aren't the
// same as before.
func (s *rulesState) wanted(of []*policy.Policy,
	ref policy.Ref) (want [][]policy.Clause, others bool) {
	if slices.Equal(s.of, of) {
		return s.want, false
	}
	others = !slices.EqualFunc(s.of, of, func(a, b *policy.Policy) bool { return a.Key == b.Key })
	s.of = of
	switch {
	case ref.Subject != "":
		s.want = partsOf(policy.Merged(of, ref.Direction))
	case isOrdered(ref):
		s.want = [][]policy.Clause{of[0].Clauses(ref.Direction)}
	default:
		s.want = partsOf(of[0].Clauses(ref.Direction))
	}
	return s.want, others
}

// isOrdered reports whether rules are a ClusterNetworkPolicy's. They also deny, so they are never
// brought in parts, nor left out.
func isOrdered(ref policy.Ref) bool { return ref.Policy.Namespace == "" }

// rulesOf are the rules by which the policies with a podSelector isolate in a direction: those of
// each, or, of many, all together.
func (c *Cluster) rulesOf(subject selector.Key, d policy.Direction) []policy.Ref {
	keys := c.selecting(subject, d)
	if len(keys) >= c.opts.MergeFrom {
		return []policy.Ref{mergedRef(keys[0].Namespace, subject, d)}
	}
	var out []policy.Ref
	for _, k := range keys {
		out = append(out, policy.Ref{Policy: k, Direction: d})
	}
	return out
}

// selecting lists the NetworkPolicies with a podSelector that govern a direction, in no order.
func (c *Cluster) selecting(subject selector.Key, d policy.Direction) (out []policy.Key) {
	for k := range c.bySubject[subject] {
		if p := c.policies[k]; p.Tier == policy.TierNetworkPolicy && p.Section(d) != nil {
			out = append(out, k)
		}
	}
	return out
}

// orderedOf lists the ClusterNetworkPolicies with a subject that govern a direction, in no order.
func (c *Cluster) orderedOf(subject selector.Key, d policy.Direction) (out []*policy.Policy) {
	for k := range c.bySubject[subject] {
		if p := c.policies[k]; p.Tier != policy.TierNetworkPolicy && p.Section(d) != nil {
			out = append(out, p)
		}
	}
	return out
}

func mergedRef(namespace string, subject selector.Key, d policy.Direction) policy.Ref {
	return policy.Ref{Policy: policy.Key{Namespace: namespace}, Subject: subject, Direction: d}
}

// refsOf are all rules that a policy may be part of.
func refsOf(p *policy.Policy) (out []policy.Ref) {
	for _, d := range policy.Directions {
		out = append(out, policy.Ref{Policy: p.Key, Direction: d})
		if p.Tier == policy.TierNetworkPolicy {
			out = append(out, mergedRef(p.Key.Namespace, p.Subject.Key(), d))
		}
	}
	return out
}

// PoliciesOf lists the policies, sorted, whose rules these are now.
func (c *Cluster) PoliciesOf(ref policy.Ref) []policy.Key {
	if ref.Subject == "" {
		return []policy.Key{ref.Policy}
	}
	out := c.selecting(ref.Subject, ref.Direction)
	slices.SortFunc(out, policy.Key.Compare)
	return out
}

// policiesOf are the same as objects, those without rules in the direction left out.
func (c *Cluster) policiesOf(ref policy.Ref) (out []*policy.Policy) {
	for _, k := range c.PoliciesOf(ref) {
		if p := c.policies[k]; p != nil && p.Section(ref.Direction) != nil {
			out = append(out, p)
		}
	}
	return out
}

// What bringing rules forward counts for, in members of sets.
const (
	clauseCost = 64
	setCost    = 32
	// partClauses is how many clauses a part has on average, if there are more than that.
	partClauses = 64
)

// partsOf divides clauses so that one more or less changes one part.
func partsOf(clauses []policy.Clause) [][]policy.Clause {
	if len(clauses) == 0 {
		return nil
	}
	n := uint32(1)
	for int(n)*partClauses < len(clauses) {
		n *= 2
	}
	out := make([][]policy.Clause, n)
	for _, cl := range clauses {
		i := hashOf(cl) % n
		out[i] = append(out[i], cl)
	}
	return out
}

// hashOf depends on what the clause matches.
func hashOf(cl policy.Clause) uint32 {
	h := fnv.New32a()
	for _, s := range []*policy.Set{cl.Peer, cl.Named} {
		if s != nil {
			_, _ = h.Write([]byte(s.ID.Peers + s.ID.Ports))
		}
	}
	for _, p := range cl.Ports {
		_, _ = h.Write(
			[]byte{p.Protocol, byte(p.First >> 8), byte(p.First), byte(p.Last >> 8), byte(p.Last)},
		)
	}
	return h.Sum32()
}

func equalClause(cl, o policy.Clause) bool {
	return cl.Of == o.Of && cl.Verdict == o.Verdict && cl.Rule == o.Rule &&
		cl.Peer.Equal(o.Peer) && cl.Named.Equal(o.Named) && slices.Equal(cl.Ports, o.Ports)
}

// inBoth lists what both allow of what is there and what is wanted: whole clauses, and of peers of
// several policies those that are in both.
func inBoth(there, wanted []policy.Clause) (out []policy.Clause) {
	alike := map[uint32][]policy.Clause{}
	for _, cl := range wanted {
		h := hashOf(cl)
		alike[h] = append(alike[h], cl)
	}
	for _, cl := range there {
		for _, other := range alike[hashOf(cl)] {
			if both, some := common(cl, other); some {
				out = append(out, both)
				break
			}
		}
	}
	return out
}

func common(cl, other policy.Clause) (_ policy.Clause, some bool) {
	other.Of, other.Rule = cl.Of, cl.Rule
	if cl.Peer != nil && cl.Peer.Union && other.Peer != nil && cl.Peer.ID == other.Peer.ID {
		cl.Peer, other.Peer = cl.Peer.Within(other.Peer), other.Peer.Within(cl.Peer)
	}
	return cl, equalClause(cl, other) && !cl.Peer.Nobody()
}

func equalClauses(a, b []policy.Clause) bool { return slices.EqualFunc(a, b, equalClause) }

// takeRules brings the marked rules in line with their use and their policy, as far as the budget
// goes, the smallest first.
func (c *Cluster) takeRules(budget *int) []policy.Ref {
	sizes := make(map[policy.Ref]int, len(c.dirtyRules))
	for ref := range c.dirtyRules {
		if state := c.rules[ref]; state == nil || state.users == 0 {
			sizes[ref] = 0 // it gives back what others may need
			continue
		}
		for _, p := range c.policiesOf(ref) {
			sizes[ref] += 1 + len(p.Section(ref.Direction).Rules)
		}
	}
	refs := slices.SortedFunc(maps.Keys(sizes), func(a, b policy.Ref) int {
		return cmp.Or(cmp.Compare(sizes[a], sizes[b]), a.Compare(b))
	})
	changed := map[policy.Ref]struct{}{}
	c.keepClauseBounds(changed)
	for _, ref := range refs {
		c.advance(ref, budget, changed)
	}
	for namespace := range c.accounts { // pods may have joined sets
		c.keepMemberBound(namespace, changed)
	}
	return slices.SortedFunc(maps.Keys(changed), policy.Ref.Compare)
}

// advance brings rules forward, and notes in changed those that the caller has to look at. What is
// left for later allows until then only what it allowed before and will allow.
func (c *Cluster) advance(ref policy.Ref, budget *int, changed map[policy.Ref]struct{}) {
	state := c.rules[ref]
	if state == nil {
		delete(c.dirtyRules, ref)
		return
	}
	used := state.users > 0
	var want [][]policy.Clause
	if used {
		var others bool
		if want, others = state.wanted(c.policiesOf(ref), ref); others {
			changed[ref] = struct{}{}
		}
	}
	if resized := c.resize(ref, state, want, budget); resized || used != state.told {
		state.told = used
		changed[ref] = struct{}{}
	}
	left := false
	for i, part := range want {
		if equalClauses(part, state.parts[i]) {
			continue
		}
		if left = left || *budget <= 0 && !isOrdered(ref); left {
			part = keptOf(state.parts[i], part, *budget)
		}
		if equalClauses(part, state.parts[i]) {
			continue
		}
		c.takePart(ref, state, i, part)
		changed[ref] = struct{}{}
		*budget -= clauseCost * len(part)
		of := state.of
		c.keepMemberBound(ref.Policy.Namespace, changed)
		if !slices.Equal(of, state.of) { // some are emptied, and want is what they were
			c.advance(ref, budget, changed)
			return
		}
	}
	if left {
		c.dirtyRules[ref] = struct{}{}
	} else {
		delete(c.dirtyRules, ref)
	}
	if !used {
		delete(c.rules, ref)
	}
}

// resize makes room for other parts. Of another number every part is another one: at first with
// what of it was there.
func (c *Cluster) resize(ref policy.Ref, state *rulesState, want [][]policy.Clause,
	budget *int) (changed bool) {
	if len(state.parts) == len(want) {
		return false
	}
	old := state.parts
	there := slices.Concat(old...)
	state.parts = make([][]policy.Clause, len(want))
	for i, part := range want {
		c.takePart(ref, state, i, keptOf(there, part, *budget))
		*budget -= clauseCost * len(state.parts[i])
	}
	for _, part := range old {
		c.giveUp(ref, part)
	}
	return true
}

// maxDebt is by how much the rules that are kept while they wait may exceed a budget. They are
// written anew, and others wait for that.
const maxDebt = 2 * partClauses * clauseCost

// keptOf is what a part has while it waits: what both the old and the wanted one allow, or nothing
// where the budget is far exceeded.
func keptOf(there, wanted []policy.Clause, budget int) []policy.Clause {
	if budget < -maxDebt {
		return nil
	}
	return inBoth(there, wanted)
}

// takePart replaces a part. The sets of the old one are given up later than those of the new one
// are taken into use, so that one which stays in use isn't emptied in between.
func (c *Cluster) takePart(ref policy.Ref, state *rulesState, i int, part []policy.Clause) {
	a := c.account(ref.Policy.Namespace)
	eachSet(part, func(s *policy.Set) {
		c.acquire(s)
		a.charge(c.sets[s.ID])
	})
	old := state.parts[i]
	state.parts[i] = part
	c.giveUp(ref, old)
}

// giveUp gives back the uses of the sets that a part had.
func (c *Cluster) giveUp(ref policy.Ref, part []policy.Clause) {
	a := c.account(ref.Policy.Namespace)
	eachSet(part, func(s *policy.Set) {
		a.discharge(c.sets[s.ID])
		c.unused = append(c.unused, s)
	})
	if a.sets == 0 {
		// Or every namespace that ever was would be looked at.
		delete(c.accounts, ref.Policy.Namespace)
	}
}

// freeSets gives back the uses of sets that rules have given up, as far as the budget goes. Sets
// that the caller hasn't heard of cost nothing.
func (c *Cluster) freeSets(sets map[policy.SetID]SetChange, budget *int) {
	var later []*policy.Set
	for _, s := range c.unused {
		set := c.sets[s.ID]
		if *budget <= 0 && !set.fresh && set.users == 1 {
			later = append(later, s)
			continue
		}
		fresh := set.fresh
		if c.release(s) && !fresh {
			sets[s.ID] = SetChange{Set: *s, Deleted: true}
			*budget -= setCost
		}
	}
	c.unused = later
}

func eachSet(clauses []policy.Clause, f func(*policy.Set)) {
	for _, cl := range clauses {
		if cl.Peer != nil {
			f(cl.Peer)
		}
		if cl.Named != nil {
			f(cl.Named)
		}
	}
}
