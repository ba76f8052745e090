package nft

import (
	"slices"
	"testing"
)

// What a batch allows waits for a guard that grows only where a packet that has missed it can find
// that later: keys of maps for the switch, members of sets for the finish.
func TestWhoWaitsForAGuard(t *testing.T) {
	t.Parallel()
	src, dst := []Field{SrcAddr4}, []Field{DstAddr4}
	guarded, hosts := rule(InSet{dst, "guard"}, drop), rule(InSet{dst, "hosts"}, accept)
	pods := rule(Dispatch{src, "pods"})
	for _, c := range []struct {
		name          string
		rules         []Rule
		key, finishes bool
	}{
		{"before all", []Rule{guarded, pods, hosts}, true, true},
		{"in a chain before all", []Rule{rule(jump("guarded")), pods, hosts}, true, true},
		{"between them", []Rule{pods, guarded, hosts}, false, true},
		{"after all", []Rule{pods, hosts, guarded}, false, false},
		{"behind another map's verdict", []Rule{pods, rule(Dispatch{src, "other"})}, false, false},
		{"where only its members return", []Rule{rule(jump("members")), pods, hosts},
			false, false},
		{"before a chain from which some don't return", []Rule{guarded,
			rule(MatchAddr{DstAddr4, addr("10.0.0.8")}, jump("end")), pods, hosts}, true, true},
		{"before a chain from which none returns", []Rule{guarded, rule(jump("end")), pods, hosts},
			false, false},
		{"nowhere", []Rule{pods, hosts}, false, false},
	} {
		have := smallTable()
		have.AddChain(&Chain{Name: "guarded", Rules: []Rule{guarded}})
		have.AddChain(&Chain{Name: "end", Rules: []Rule{rule(accept)}})
		have.AddChain(&Chain{Name: "members",
			Rules: []Rule{rule(InSet{dst, "guard"}, ret), rule(accept)}})
		have.AddSet(&Set{Name: "other", Key: src, Verdicts: true}).
			Elements[AddrElement(addr("10.0.0.9"))] = JumpTo("guarded")
		have.Chains["egress/1"].Rules = slices.Concat(c.rules, []Rule{rule(drop)})
		want := have.Clone()
		want.Sets["pods"].Elements[AddrElement(addr("10.0.0.3"))] = Verdict{Kind: Accept}
		want.Sets["hosts"].Elements[AddrElement(addr("10.0.0.4"))] = Verdict{}
		if b := Plan(have, Diff(have, want)); b.WaitBeforeSwitch || b.WaitBeforeFinish {
			t.Errorf("%s: something waits for a guard that stays:\n%s", c.name, b)
		}
		want.Sets["guard"].Elements[AddrElement(addr("10.0.0.4"))] = Verdict{}
		b := Plan(have, Diff(have, want))
		if b.WaitBeforeSwitch != c.key || b.WaitBeforeFinish != c.finishes {
			t.Errorf("%s: the key is to wait: %t; the member: %t\n%s", c.name, c.key, c.finishes, b)
		}
	}
}
