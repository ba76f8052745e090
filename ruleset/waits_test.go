package ruleset_test

import (
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/ruleworld"
)

// TestAddedPodsWaitForNothing: a pod that comes has its rules without a wait for packets under way:
// on a veth, with IPVS, and where another plugin wired it. It joins guards then.
func TestAddedPodsWaitForNothing(t *testing.T) {
	t.Parallel()
	added := selector.Pod{Namespace: "dev", Name: "added"}
	addresses := []netip.Addr{netip.MustParseAddr("10.244.1.77"),
		netip.MustParseAddr("fd00:10:244:1::77")}
	for name, c := range map[string]struct {
		veth string
		ipvs bool
	}{"on a veth": {"slup77", false}, "with IPVS": {"slup77", true},
		"of another plugin": {"", false}} {
		w := ruleworld.New(t)
		w.Render.SetIPVS(c.ipvs)
		w.Change(func(*cluster.Cluster) {})
		w.Cluster.SetPod(policy.Pod{ID: added, Node: cases.NodeName, Addresses: addresses,
			Labels: selector.LabelSetOf(map[string]string{"app": "db"})})
		w.Cluster.SetEndpoint(policy.Endpoint{ID: "77", Pod: added, Interface: c.veth,
			Addresses: addresses})
		b := nft.Plan(w.Have, w.Render.Patch(w.Cluster, w.Cluster.Take()))
		if len(b.Prepare) == 0 || len(b.Switch) == 0 || len(b.Finish) == 0 {
			t.Errorf("%s: not all of the three transactions:\n%s", name, b)
		}
		if b.WaitBeforeSwitch || b.WaitBeforeFinish {
			t.Errorf("%s: it waits:\n%s", name, b)
		}
	}
}
