package cluster

import (
	"slices"

	"github.com/sluice-net/sluice/policy"
)

// tiers are the policies that select a pod and govern a direction, by tier and in the order in
// which they are asked.
type tiers [len(policy.Tiers)][]*policy.Policy

// inTiers sorts policies.
func inTiers(policies []*policy.Policy) (out tiers) {
	slices.SortFunc(policies, (*policy.Policy).Compare)
	for _, p := range policies {
		out[p.Tier] = append(out[p.Tier], p)
	}
	return out
}

// empty reports whether there is no policy: all is allowed.
func (t *tiers) empty() bool {
	return len(slices.Concat(t[:]...)) == 0
}

// hit is a rule that matches a flow, or does so by half, with the peer by which; nil is any.
type hit struct {
	policy *policy.Policy
	rule   *policy.Rule
	peer   *policy.Peer
	match  match
}

// ruling is what policies say of a flow.
type ruling struct {
	allowed bool
	by      *hit // the rule that decides; nil: none does
	passed  *hit // the rule of the Admin tier that passes it to the next
}

// ask asks tier by tier. The first rule that matches decides, or passes the flow to the next tier.
// NetworkPolicies that select the pod decide also where no rule of theirs matches. near gets the
// rules that were asked, would allow, and don't match; it may be nil.
func (c *Cluster) ask(t *tiers, o *otherEnd, f policy.Flow, d policy.Direction,
	near func(hit)) (out ruling) {
	for _, policies := range t {
		found := c.first(policies, o, f, d, near)
		switch {
		case found == nil && len(policies) > 0 && policies[0].Tier == policy.TierNetworkPolicy:
			return out
		case found == nil:
			continue
		}
		switch found.policy.Outcome(found.rule) {
		case policy.Accept:
			out.allowed, out.by = true, found
			return out
		case policy.Deny:
			out.by = found
			return out
		case policy.Pass:
			out.passed = found
		}
	}
	out.allowed = true
	return out
}

// first is the first rule of a tier that matches, or nil.
func (c *Cluster) first(policies []*policy.Policy, o *otherEnd, f policy.Flow, d policy.Direction,
	near func(hit)) *hit {
	for _, p := range policies {
		rules := p.Section(d).Rules
		for i := range rules {
			r := &rules[i]
			for peer, m := range c.matches(r, o, f) {
				h := hit{p, r, peer, m}
				if m.peer && m.port {
					return &h
				}
				if near != nil && p.Outcome(r) == policy.Accept {
					near(h)
				}
			}
		}
	}
	return nil
}

// allowedOf is ask for all traffic with an address at once. of says what a rule matches of it.
func (t *tiers) allowedOf(d policy.Direction, of func(*policy.Rule) Traffic) Traffic {
	var allowed Traffic
	undecided := All()
	for _, policies := range t {
		var passed Traffic
		for _, p := range policies {
			rules := p.Section(d).Rules
			for i := range rules {
				matched := of(&rules[i]).And(undecided)
				undecided = undecided.Minus(matched)
				switch p.Outcome(&rules[i]) {
				case policy.Accept:
					allowed = allowed.Or(matched)
				case policy.Pass:
					passed = passed.Or(matched)
				case policy.Deny:
				}
			}
		}
		if len(policies) > 0 && policies[0].Tier == policy.TierNetworkPolicy {
			return allowed
		}
		undecided = undecided.Or(passed)
	}
	return allowed.Or(undecided)
}
