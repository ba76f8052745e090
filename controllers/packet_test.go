package controllers

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
)

// TestPackets sends real packets for every case of the meaning table: all of
// its flows connect without the policies, then exactly the allowed ones, then
// all of them again.
func TestPackets(t *testing.T) {
	t.Parallel()
	for _, tc := range cases.All() {
		t.Run(tc.Line+"/"+tc.Name, func(t *testing.T) {
			t.Parallel()
			w := newPacketWorld(t, RulesetConfig{})
			allow, deny := cases.MustFlows(tc.Allow), cases.MustFlows(tc.Deny)
			w.expect(append(allow, deny...), true)
			policies := w.applyCase(tc)
			w.expect(allow, true)
			w.expect(deny, false)
			w.deletePolicies(policies)
			w.expect(deny, true)
		})
	}
}

func (w *packetWorld) applyCase(tc cases.Case) []*networkingv1.NetworkPolicy {
	w.t.Helper()
	policies, err := tc.Render(cases.Addr)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, np := range policies {
		w.cluster.SetPolicy(policy.Parse(np))
	}
	w.apply()
	return policies
}
