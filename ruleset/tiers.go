package ruleset

import (
	"slices"
	"strconv"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// ClusterNetworkPolicies, of the tiers before and behind NetworkPolicies', are asked in an order,
// and some rules pass: what they match skips the rest of the tier. nftables returns from one chain
// only. So a tier's chain, shared by the pods with the same policies, has the rules of policies
// that pass in itself, and jumps to the chains of others.
//
// Rules that deny jump to a chain of their own, which counts, samples and drops. Whose packet it is
// isn't known there. A map could find the pod's own chain by its address; but kernels before Linux
// 6.18 check each way through the table anew when a pod is added, and from each pod through each
// such rule there would be ways to all pods' chains.

// verdictPrefix tells sets apart by what rules do with their members.
var verdictPrefix = map[policy.Verdict]string{policy.Deny: "deny-", policy.Pass: "pass-"}

// tierChain names the chain of a tier that is asked in an order.
func tierChain(stage cluster.Stage, list string, d policy.Direction) string {
	return nft.Name("tier", stage.Tier.String(), shortHash(list), d.String())
}

// deniedByName names the chain that counts what a rule denies.
func deniedByName(ref policy.Ref, index int) string {
	return nft.Name("denied", "by", ref.Policy.Name, strconv.Itoa(index), ref.Direction.String())
}

// clauseVerdict is what a rule does.
func clauseVerdict(ref policy.Ref, cl policy.Clause) nft.Statement {
	switch cl.Verdict {
	case policy.Deny:
		return nft.Do{Verdict: nft.JumpTo(deniedByName(ref, cl.Rule))}
	case policy.Pass:
		return do(nft.Return)
	case policy.Accept:
	}
	return do(nft.Accept)
}

// passes reports whether one of the clauses leaves the tier.
func passes(clauses []policy.Clause) bool {
	return slices.ContainsFunc(clauses, func(cl policy.Clause) bool {
		return cl.Verdict == policy.Pass
	})
}

// patchDenials makes and deletes the chains that count what a policy's rules deny. Their counters
// go on as long as the rule has its place.
func (cfg *Config) patchDenials(out *nft.Patch, ref policy.Ref, old, now renderedPart) {
	for _, i := range old.denials {
		if !slices.Contains(now.denials, i) {
			out.Chains[deniedByName(ref, i)] = nil
		}
	}
	for _, i := range now.denials {
		if !slices.Contains(old.denials, i) {
			name := deniedByName(ref, i)
			out.Chains[name] = cfg.denyingChain(name, "by "+ref.Policy.Name+", rule "+
				strconv.Itoa(i), ref.Direction)
		}
	}
}

// tierRules are the rules of a tier's chain.
func (r *Renderer) tierRules(refs []policy.Ref) (out []nft.Rule) {
	for _, ref := range refs {
		clauses := r.rules[ref].parts[policyChain(ref)].clauses
		switch {
		case passes(clauses):
			for _, cl := range clauses {
				out = append(out, clauseRules(ref, cl)...)
			}
		default:
			out = append(out, rule("", nft.Do{Verdict: nft.JumpTo(policyChain(ref))}))
		}
	}
	return out
}

// patchTiers renders the chains of tiers of which some rules have changed.
func (r *Renderer) patchTiers(out *nft.Patch, changed []policy.Ref) {
	for name, p := range r.tiers {
		if slices.ContainsFunc(p.rules, func(ref policy.Ref) bool {
			return slices.Contains(changed, ref)
		}) {
			out.Chains[name] = r.profileChain(p)
		}
	}
}

// DeniedBy is a rule of a ClusterNetworkPolicy that denies.
type DeniedBy struct {
	Tier      policy.Tier
	Policy    policy.Key
	Direction policy.Direction
	Rule      int
}

// DeniedBy returns, by the names of chains, the rules whose denials they count.
func (r *Renderer) DeniedBy() map[string]DeniedBy {
	out := map[string]DeniedBy{}
	for _, p := range r.tiers {
		for _, ref := range p.rules {
			for _, i := range r.rules[ref].parts[policyChain(ref)].denials {
				out[deniedByName(ref, i)] = DeniedBy{p.tier, ref.Policy, ref.Direction, i}
			}
		}
	}
	return out
}
