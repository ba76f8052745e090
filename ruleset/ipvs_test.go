package ruleset_test

import (
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/test/ruleworld"
)

// TestWhereIPVSIsJudged: what IPVS may take on input comes that far, and is judged where it goes
// out; what is for the node itself is judged after it. World "stays" isolates all pods: egress to
// app=db alone, ingress from all pods at port http.
func TestWhereIPVSIsJudged(t *testing.T) {
	t.Parallel()
	w := ruleworld.New(t)
	without := w.Have.Clone()
	w.Render.SetIPVS(true)
	w.Change(func(*cluster.Cluster) {})
	got := w.Have.Clone() // what IPVS gets on input
	delete(got.Chains, "ipvs-input/1")
	refused := w.Have.Clone() // by the kernel: the pods' entries are left out
	for _, d := range []string{"egress", "ingress"} {
		clear(refused.Sets["dispatch/"+d+"/address/v4"].Elements)
	}
	addr := netip.MustParseAddr
	web, db := addr("10.244.1.10"), addr("10.244.1.11")
	service, outside, denied := addr("10.96.0.10"), addr("192.0.2.10"), addr("203.0.113.9")
	in := func(src, dst netip.Addr, iif string) ruleworld.Packet {
		return ruleworld.Packet{Src: src, Dst: dst, Iif: iif, Protocol: 6, Port: 80, LocalDst: true}
	}
	out := func(src, dst netip.Addr, oif string) ruleworld.Packet {
		return ruleworld.Packet{Src: src, Dst: dst, Oif: oif, Protocol: 6, Port: 8080}
	}
	for name, tc := range map[string]struct {
		rs   *nft.Ruleset
		p    ruleworld.Packet
		want bool
	}{
		"control: without IPVS, the Service is judged": {without, in(web, service, "slup0"), false},
		"a pod to a Service":                           {got, in(web, service, "slup0"), true},
		"a pod to the node":                            {w.Have, in(web, service, "slup0"), false},
		"not the pod's address":                        {got, in(outside, service, "slup0"), false},
		"another pod's veth":                           {got, in(web, service, "slup1"), false},
		"a veth of no pod":                             {got, in(web, service, "slupx"), false},
		"the world":                                    {got, in(outside, service, "eth0"), true},
		"sent on to where the pod may send":            {w.Have, out(web, db, "slup1"), true},
		"sent on to where it may not":                  {w.Have, out(web, outside, "eth0"), false},
		"sent on from the world":                       {w.Have, out(denied, db, "slup1"), false},
		"control: it wasn't judged before":             {without, out(denied, db, "slup1"), true},
		"sent on by a refused pod":                     {refused, out(web, outside, "eth0"), false},
		"sent on to a refused pod":                     {refused, out(outside, db, "eth1"), false},
		"the node to a refused pod": {refused,
			ruleworld.Packet{Src: outside, Dst: db, Oif: "slup1", LocalSrc: true}, true},
	} {
		hook := nft.HookInput
		if tc.p.Iif == "" {
			hook = nft.HookOutput
		}
		passes, err := ruleworld.Traverse(tc.rs, hook, tc.p)
		if err != nil || passes != tc.want {
			t.Errorf("%s: passes %v, want %v, error %v", name, passes, tc.want, err)
		}
	}
	w.Render.SetIPVS(false)
	w.Change(func(*cluster.Cluster) {})
	if w.Have.String() != without.String() {
		t.Error("once IPVS is gone, the ruleset isn't what it was before")
	}
}
