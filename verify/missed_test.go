package verify_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/packetworld"
)

// TestMutantsOnceMissed: a rule is wrong for a pair of addresses alone, neither of which is a
// stranger's, or for neighbour discovery alone.
func TestMutantsOnceMissed(t *testing.T) {
	t.Parallel()
	k := newKernelTable(t)
	for name, mutate := range map[string]func(rs *nft.Ruleset) bool{
		"what pods send to pods is dropped on its way out": func(rs *nft.Ruleset) bool {
			c := rs.Chains[nft.Name("masquerade", "leaving")]
			if c != nil {
				c.Rules = slices.Clone(c.Rules)
				statements := slices.Clone(c.Rules[0].Statements)
				statements[len(statements)-1] = nft.Do{Verdict: nft.Verdict{Kind: nft.Drop}}
				c.Rules[0] = nft.Rule{Statements: statements}
			}
			return c != nil
		},
		"a pod sends tunnel packets in a peer's name": func(rs *nft.Ruleset) bool {
			c := rs.Chains[nft.Name("tunnel", "input")]
			if c != nil {
				c.Rules = slices.Clone(c.Rules)
				slices.Reverse(c.Rules)
			}
			return c != nil
		},
		"neighbour discovery is dropped where IPVS sends on": func(rs *nft.Ruleset) bool {
			c := rs.Chains[packetworld.BaseChain("ipvs-ingress")]
			if c == nil {
				return false
			}
			c.Rules = slices.Clone(c.Rules)
			i := slices.IndexFunc(c.Rules, func(r nft.Rule) bool {
				return slices.Contains(r.Statements, nft.Statement(nft.MatchND{}))
			})
			c.Rules[i].Statements = []nft.Statement{nft.MatchND{},
				nft.Do{Verdict: nft.Verdict{Kind: nft.Drop}}}
			return true
		},
		"neighbour discovery is judged where IPVS sends on": func(rs *nft.Ruleset) bool {
			c := rs.Chains[packetworld.BaseChain("ipvs-egress")]
			if c != nil {
				c.Rules = slices.DeleteFunc(slices.Clone(c.Rules), func(r nft.Rule) bool {
					return slices.Contains(r.Statements, nft.Statement(nft.MatchND{}))
				})
			}
			return c != nil
		},
		"a pod behind IPVS is an end of connections by one address alone": func(
			rs *nft.Ruleset) bool {
			return rs.Chains[packetworld.BaseChain("ipvs-egress")] != nil &&
				endsByOneAddress(rs.Sets[nft.Name("ends", "address", "v4")])
		},
		"a pod is an end of connections by one address alone": func(rs *nft.Ruleset) bool {
			return endsByOneAddress(rs.Sets[nft.Name("ends", "veth", "v4")])
		},
	} {
		for example := 0; ; example++ {
			s := rapid.Custom(drawVerifyState).Example(example)
			mutant := s.rules.Clone()
			if !mutate(mutant) || differ(s.rules, mutant) == nil {
				continue
			}
			p, err := k.install(mutant)
			if err != nil {
				t.Fatal(err)
			}
			if result, err := s.pass(p); err != nil || result.Total == 0 {
				t.Errorf("%s: found %d differences, %v", name, result.Total, err)
			}
			break
		}
	}
}

// endsByOneAddress takes the pairs of a pod's address and another one of it away.
func endsByOneAddress(s *nft.Set) (some bool) {
	const size = 4
	for e := range s.Elements {
		if sender, end := e.First[:size], e.First[len(e.First)-size:]; sender != end {
			delete(s.Elements, e)
			some = true
		}
	}
	return some
}
