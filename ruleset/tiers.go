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
// Rules that deny jump to a chain of their own, which counts, and leads on to the chain that denies
// to the pod. Which pod that is isn't known any more: maps find it by its address.

// verdictPrefix tells sets apart by what rules do with their members.
var verdictPrefix = map[policy.Verdict]string{policy.Deny: "deny-", policy.Pass: "pass-"}

// tierChain names the chain of a tier that is asked in an order.
func tierChain(stage cluster.Stage, list string, d policy.Direction) string {
	return nft.Name("tier", stage.Tier.String(), shortHash(list), d.String())
}

// denialMap names the maps that find the chain that denies to a pod, as the dispatch maps do.
func denialMap(d policy.Direction, by, family string) string {
	return nft.Name("denials", d.String(), by, family)
}

// denials names the chain that leads what a rule denies to the pod's chain.
func denials(d policy.Direction) string { return nft.Name("denials", d.String()) }

// deniedByName names the chain that counts what a rule denies.
func deniedByName(ref policy.Ref, index int) string {
	return nft.Name("denied", "by", ref.Policy.Name, strconv.Itoa(index), ref.Direction.String())
}

// addDenials adds the chains and maps that lead denials to pods' chains.
func addDenials(out *nft.Ruleset) {
	for _, d := range policy.Directions {
		c := &nft.Chain{Name: denials(d)}
		for _, f := range families {
			byVeth := []nft.Field{podField(d, f.is4), linkField(d)}
			byAddress := byVeth[:1:1]
			out.AddSet(&nft.Set{Name: denialMap(d, "veth", f.suffix), Key: byVeth, Verdicts: true,
				Comment: "pods under ClusterNetworkPolicies, " + d.String()})
			out.AddSet(&nft.Set{Name: denialMap(d, "address", f.suffix), Key: byAddress,
				Verdicts: true, Comment: "pods under ClusterNetworkPolicies that another CNI " +
					"plugin wired, " + d.String()})
			c.Rules = append(c.Rules,
				rule("", nft.Dispatch{Fields: byVeth, Map: denialMap(d, "veth", f.suffix)}),
				rule("", nft.Dispatch{Fields: byAddress, Map: denialMap(d, "address", f.suffix)}))
		}
		c.Rules = append(c.Rules, rule("", do(nft.Drop)))
		out.AddChain(c)
	}
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
func patchDenials(out *nft.Patch, ref policy.Ref, old, now renderedPart) {
	for _, i := range old.denials {
		if !slices.Contains(now.denials, i) {
			out.Chains[deniedByName(ref, i)] = nil
		}
	}
	for _, i := range now.denials {
		if !slices.Contains(old.denials, i) {
			name := deniedByName(ref, i)
			out.Chains[name] = &nft.Chain{Name: name, Rules: []nft.Rule{
				rule("", nft.Count{}),
				rule("", nft.Do{Verdict: nft.JumpTo(denials(ref.Direction))}),
			}}
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
