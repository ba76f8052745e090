package ruleset_test

import (
	"slices"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/packetworld"
)

// packetWorld is the world of these tests.
type packetWorld struct{ *packetworld.World }

func newPacketWorld(t *testing.T, cfg ruleset.Config) *packetWorld {
	t.Helper()
	return &packetWorld{packetworld.New(t, cfg)}
}

// TestPackets sends real packets for every case of the meaning tables: all of its flows connect
// without the policies, then exactly the allowed ones, then all of them again.
func TestPackets(t *testing.T) {
	t.Parallel()
	for _, tc := range slices.Concat(cases.All(), cases.Tiers()) {
		t.Run(tc.Line+"/"+tc.Name, func(t *testing.T) {
			t.Parallel()
			w := newPacketWorld(t, ruleset.Config{})
			allow, deny := cases.MustFlows(tc.Allow), cases.MustFlows(tc.Deny)
			w.Expect(append(allow, deny...), true)
			policies := w.applyCase(tc)
			w.Expect(allow, true)
			w.Expect(deny, false)
			w.DeletePolicies(policies...)
			w.Expect(deny, true)
		})
	}
}

func (w *packetWorld) applyCase(tc cases.Case) (keys []policy.Key) {
	w.T.Helper()
	policies, err := tc.Render(cases.Addr)
	if err != nil {
		w.T.Fatal(err)
	}
	clusterPolicies, err := tc.RenderCluster(cases.Addr)
	if err != nil {
		w.T.Fatal(err)
	}
	set := func(p policy.Policy) {
		w.Cluster.SetPolicy(p)
		keys = append(keys, p.Key)
	}
	for _, np := range policies {
		set(policy.Parse(np))
	}
	for _, cnp := range clusterPolicies {
		set(policy.ParseCluster(cnp))
	}
	w.Apply()
	return keys
}
