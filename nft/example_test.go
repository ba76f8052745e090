package nft_test

import (
	"fmt"
	"net/netip"

	"github.com/sluice-net/sluice/nft"
)

// A peer joins a set, and a rule changes: two transactions, of which the first one changes the
// rule, and only the second lets the peer in.
func ExamplePlan() {
	web := nft.AddrElement(netip.MustParseAddr("10.244.1.2"))
	state := func(port uint16, members ...nft.Element) *nft.Ruleset {
		r := nft.NewRuleset()
		s := r.AddSet(&nft.Set{Name: "web", Key: []nft.Field{nft.SrcAddr4}})
		for _, m := range members {
			s.Elements[m] = nft.Verdict{}
		}
		r.AddChain(&nft.Chain{Name: "policy", Rules: []nft.Rule{{Statements: []nft.Statement{
			nft.InSet{Fields: s.Key, Set: s.Name}, nft.MatchPort{Proto: 6, First: port, Last: port},
			nft.Do{Verdict: nft.Verdict{Kind: nft.Accept}},
		}}}})
		return r
	}
	before, after := state(80), state(443, web)
	fmt.Print(nft.Plan(before, nft.Diff(before, after)))
	// Output:
	// switch:
	// 	flush chain policy
	// 	add rule policy ip saddr @web tcp dport 443 accept
	// finish (after a wait):
	// 	add element web { 10.244.1.2 }
}
