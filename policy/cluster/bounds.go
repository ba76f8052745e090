package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/sluice-net/sluice/policy"
)

// Bounds say what the policies of one namespace that select pods of this node may cost it. The
// defaults are far above any honest use. The kernel finds a set by reading all of the table's, so
// sets cost with the square of their number, and every member takes memory.
//
// ClusterNetworkPolicies are an administrator's, of no namespace, and have a bound each (see
// policy.ParseCluster): one that is left out would deny less.
type Bounds struct {
	Clauses int // of those policies; 0: 4,000
	Members int // of the sets that they look up; 0: 2,000,000
}

func (b Bounds) withDefaults() Bounds {
	return Bounds{Clauses: cmp.Or(b.Clauses, 4000), Members: cmp.Or(b.Members, 2_000_000)}
}

// account is what the policies of one namespace cost this node at the moment.
type account struct{ sets, members int }

// shedPolicy is a policy that was emptied, as it was told.
type shedPolicy struct {
	whole     *policy.Policy
	byMembers bool // it met the bound on members
}

// account returns a namespace's account.
func (c *Cluster) account(namespace string) *account {
	a := c.accounts[namespace]
	if a == nil {
		a = &account{}
		c.accounts[namespace] = a
	}
	return a
}

// charge notes one more use of a set, which counts once.
func (a *account) charge(s *setState) {
	if s.payers[a]++; s.payers[a] == 1 {
		a.sets++
		a.members += s.size
	}
}

func (a *account) discharge(s *setState) {
	if s.payers[a]--; s.payers[a] == 0 {
		delete(s.payers, a)
		a.sets--
		a.members -= s.size
	}
}

// keepClauseBounds empties policies, the costliest first, of each namespace whose marked rules are
// too many together: they isolate, and allow nothing. What it decides depends only on which
// policies there are and whom they select.
func (c *Cluster) keepClauseBounds(changed map[policy.Ref]struct{}) {
	namespaces := map[string]bool{}
	for ref := range c.dirtyRules {
		if !isOrdered(ref) {
			namespaces[ref.Policy.Namespace] = true
		}
	}
	costs := map[string]map[policy.Key]int{}
	for ref, state := range c.rules {
		if namespace := ref.Policy.Namespace; namespaces[namespace] && state.users > 0 {
			if costs[namespace] == nil {
				costs[namespace] = map[policy.Key]int{}
			}
			for _, p := range c.policiesOf(ref) {
				costs[namespace][p.Key] += p.Section(ref.Direction).CountClauses()
			}
		}
	}
	for _, cost := range costs {
		c.empty(costliest(cost, sum(cost)-c.opts.Bounds.Clauses), false, changed)
	}
}

// keepMemberBound does the same where the sets of a namespace's policies have too many members.
// Which pods there are isn't known before the sets are filled, so it depends on what came first.
func (c *Cluster) keepMemberBound(namespace string, changed map[policy.Ref]struct{}) {
	if namespace == "" {
		return
	}
	for a := c.accounts[namespace]; a != nil && a.members > c.opts.Bounds.Members; {
		cost := map[policy.Key]int{}
		for ref, state := range c.rules {
			if ref.Policy.Namespace != namespace {
				continue
			}
			for _, p := range c.policiesOf(ref) {
				if _, shed := c.shed[p.Key]; !shed {
					cost[p.Key] += c.memberCost(p, ref, state)
				}
			}
		}
		if len(cost) == 0 {
			return
		}
		// Sets that policies share are in the cost of each, so these may be too few.
		c.empty(costliest(cost, a.members-c.opts.Bounds.Members), true, changed)
	}
}

// memberCost is how many addresses a policy's rules look up, as far as the rules in use have them.
// Those of one that is merged with others are counted without these.
func (c *Cluster) memberCost(p *policy.Policy, ref policy.Ref, state *rulesState) (cost int) {
	if ref.Subject == "" {
		for _, part := range state.parts {
			eachSet(part, func(s *policy.Set) { cost += 1 + c.sets[s.ID].size })
		}
		return cost
	}
	eachSet(p.Clauses(ref.Direction), func(s *policy.Set) {
		cost += 1 + len(s.Blocks)
		index, _ := c.pickers(s.ID.Kind)
		for _, key := range s.Keys {
			cost += index.Len(key)
		}
	})
	return cost
}

func sum(cost map[policy.Key]int) (out int) {
	for _, n := range cost {
		out += n
	}
	return out
}

// costliest are the fewest policies that cost as much together as is too much, the costliest first.
func costliest(cost map[policy.Key]int, tooMuch int) (out []policy.Key) {
	for _, k := range slices.SortedFunc(maps.Keys(cost), func(a, b policy.Key) int {
		return cmp.Or(cmp.Compare(cost[b], cost[a]), b.Compare(a))
	}) {
		if tooMuch <= 0 {
			break
		}
		tooMuch -= cost[k]
		out = append(out, k)
	}
	return out
}

// empty takes policies' rules away, and notes in changed whose.
func (c *Cluster) empty(keys []policy.Key, byMembers bool, changed map[policy.Ref]struct{}) {
	refs := map[policy.Ref]struct{}{}
	for _, k := range keys {
		whole := c.policies[k]
		c.shed[k] = shedPolicy{whole, byMembers}
		c.policies[k] = whole.Emptied()
		for _, ref := range refsOf(whole) {
			refs[ref] = struct{}{}
		}
	}
	for ref := range refs {
		c.advance(ref, new(int), changed)
	}
}

// restore gives the emptied policies of a namespace back their rules, since what has changed may
// have made room; those that met the bound on members only when a policy has changed, as filling
// their sets to find out costs a lot.
func (c *Cluster) restore(namespace string, byMembers bool) {
	for k, shed := range c.shed {
		if k.Namespace != namespace || shed.byMembers && !byMembers {
			continue
		}
		delete(c.shed, k)
		c.policies[k] = shed.whole
		c.markRules(shed.whole)
	}
}

// Shed lists the policies, sorted, whose rules are left out because the policies of their namespace
// cost this node too much.
func (c *Cluster) Shed() []policy.Key {
	return slices.SortedFunc(maps.Keys(c.shed), policy.Key.Compare)
}

// ShedReason says which bound the policies of a namespace meet of which Shed lists one.
func (c *Cluster) ShedReason(namespace string) string {
	return fmt.Sprintf(
		"those policies of namespace %s that select pods of this node have more than %d rules, "+
			"counted for each kind of peers and ports, or look up more than %d addresses; "+
			"this is one of the costliest: it isolates, and allows nothing, "+
			"until a policy of the namespace is changed or deleted",
		namespace, c.opts.Bounds.Clauses, c.opts.Bounds.Members,
	)
}
