package cluster

import (
	"cmp"
	"hash/fnv"
	"maps"
	"slices"

	"github.com/sluice-net/sluice/policy"
)

// rulesState are the rules of a policy in a direction that local endpoints use.
type rulesState struct {
	users int               // endpoints isolated by it
	told  bool              // the caller knows of it
	parts [][]policy.Clause // what the caller was told; their sets are in use
	want  [][]policy.Clause // what a policy says
	of    *policy.Policy    // that policy
}

// wanted are the parts of the rules as the policy has them.
func (s *rulesState) wanted(p *policy.Policy, d policy.Direction) [][]policy.Clause {
	if s.of != p {
		s.want, s.of = partsOf(p.Clauses(d)), p
	}
	return s.want
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
	return cl.Rule == o.Rule && cl.Verdict == o.Verdict &&
		sameSet(cl.Peer, o.Peer) && sameSet(cl.Named, o.Named) && slices.Equal(cl.Ports, o.Ports)
}

func sameSet(a, b *policy.Set) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.ID == b.ID
}

func equalClauses(a, b []policy.Clause) bool { return slices.EqualFunc(a, b, equalClause) }

// takeRules brings the marked rules in line with their use and their policy, as far as the budget
// goes, the smallest first.
func (c *Cluster) takeRules(budget *int) []policy.Ref {
	size := func(ref policy.Ref) int {
		if p := c.policies[ref.Policy]; p != nil && p.Section(ref.Direction) != nil {
			return len(p.Section(ref.Direction).Rules)
		}
		return 0
	}
	refs := slices.SortedFunc(maps.Keys(c.dirtyRules), func(a, b policy.Ref) int {
		return cmp.Or(cmp.Compare(size(a), size(b)), a.Compare(b))
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
// left for later allows nothing until then, also not what it allowed before: members may join its
// sets.
func (c *Cluster) advance(ref policy.Ref, budget *int, changed map[policy.Ref]struct{}) {
	state := c.rules[ref]
	if state == nil {
		delete(c.dirtyRules, ref)
		return
	}
	used := state.users > 0
	var want [][]policy.Clause
	if used {
		want = state.wanted(c.policies[ref.Policy], ref.Direction)
	}
	if resized := c.resize(ref, state, len(want)); resized || used != state.told {
		state.told = used
		changed[ref] = struct{}{}
	}
	left := false
	for i, part := range want {
		if equalClauses(part, state.parts[i]) {
			continue
		}
		if left = left || *budget <= 0; left {
			if len(state.parts[i]) > 0 {
				c.takePart(ref, state, i, nil)
				changed[ref] = struct{}{}
			}
			continue
		}
		c.takePart(ref, state, i, part)
		changed[ref] = struct{}{}
		*budget -= clauseCost * len(part)
		c.keepMemberBound(ref.Policy.Namespace, changed)
		if _, emptied := c.shed[ref.Policy]; emptied {
			return // it had its turn
		}
	}
	if !left {
		delete(c.dirtyRules, ref)
	}
	if !used {
		delete(c.rules, ref)
	}
}

// resize makes room for n parts. Of another number every part is another one.
func (c *Cluster) resize(ref policy.Ref, state *rulesState, n int) (changed bool) {
	if len(state.parts) == n {
		return false
	}
	for i := range state.parts {
		c.takePart(ref, state, i, nil)
	}
	state.parts = make([][]policy.Clause, n)
	return true
}

// takePart replaces a part. The sets of the old one are given up later than those of the new one
// are taken into use, so that one which stays in use isn't emptied in between.
func (c *Cluster) takePart(ref policy.Ref, state *rulesState, i int, part []policy.Clause) {
	a := c.account(ref.Policy.Namespace)
	eachSet(part, func(s *policy.Set) {
		c.acquire(s)
		a.charge(c.sets[s.ID])
	})
	eachSet(state.parts[i], func(s *policy.Set) {
		a.discharge(c.sets[s.ID])
		c.unused = append(c.unused, s)
	})
	state.parts[i] = part
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
