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

// TestAddedPodsUnderTiers: a pod that comes under ClusterNetworkPolicies joins what these deny, and
// pass. Its keys don't wait for packets under way; what passes it does, and what lets others reach
// it.
func TestAddedPodsUnderTiers(t *testing.T) {
	t.Parallel()
	const peers = "{namespaces: {matchLabels: {env: dev}}}"
	for name, rules := range map[string]string{
		"denied": `{action: Deny, from: [` + peers + `], protocols: [{tcp: {destinationPort: {number: 81}}}]}`,
		"passed": `{action: Pass, from: [` + peers + `], protocols: [{tcp: {destinationPort: {number: 80}}}]}`,
	} {
		w := ruleworld.New(t)
		cnp, err := cases.Case{ClusterPolicies: map[string]string{"x": `{tier: Admin, priority: 0,
  subject: {namespaces: {}}, ingress: [` + rules + `, {action: Deny, from: [{namespaces: {}}]}]}`}}.
			RenderCluster(cases.Addr)
		if err != nil {
			t.Fatal(err)
		}
		w.Change(func(c *cluster.Cluster) {
			for _, ns := range cases.Namespaces() {
				c.SetNamespace(ns.Name, ns.Labels)
			}
			c.SetPolicy(policy.ParseCluster(cnp[0]))
		})
		added := selector.Pod{Namespace: "dev", Name: "added"}
		addresses := []netip.Addr{netip.MustParseAddr("10.244.1.77")}
		w.Cluster.SetPod(policy.Pod{ID: added, Node: cases.NodeName, Addresses: addresses})
		w.Cluster.SetEndpoint(policy.Endpoint{ID: "77", Pod: added, Interface: "slup77",
			Addresses: addresses})
		b := nft.Plan(w.Have, w.Render.Patch(w.Cluster, w.Cluster.Take()))
		if len(b.Switch) == 0 || b.WaitBeforeSwitch {
			t.Errorf("%s: the keys wait, or there are none:\n%s", name, b)
		}
		waits := 0
		for _, part := range b.Parts() {
			if part.Wait {
				waits++
			}
		}
		if most := map[string]int{"denied": 1, "passed": 2}[name]; waits > most {
			t.Errorf("%s: it waits %d times:\n%s", name, waits, b)
		}
		if (name == "passed") != (len(b.Widen) > 0) || len(b.Narrow) > 0 {
			t.Errorf("%s: widen and narrow:\n%s", name, b)
		}
	}
}
