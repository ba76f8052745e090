package cluster_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/test/cases"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

func TestExplainNamesPolicyAndRule(t *testing.T) {
	t.Parallel()
	c := worldCluster()
	for key, spec := range map[string]string{
		"dev/deny":  `{podSelector: {}}`,
		"dev/allow": `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 443}]}, {from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}`,
		"ops/out":   `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 80}]}]}`,
	} {
		c.SetPolicy(policy.Parse(render(t, key, spec)))
	}
	for flow, want := range map[string]string{
		"dev/web > dev/db tcp/80": "allowed\n" +
			"  egress of dev/web: open, no policy selects the pod\n" +
			"  ingress of dev/db: allowed by dev/allow ingress rule 1 (namespace dev: app=web)",
		"dev/web > dev/db tcp/81": "denied\n" +
			"  egress of dev/web: open, no policy selects the pod\n" +
			"  ingress of dev/db: denied, isolated by dev/allow, dev/deny; nearest was dev/allow " +
			"ingress rule 0: the peer matches, the port doesn't",
		"prod/web > dev/web tcp/80": "denied\n" +
			"  egress of prod/web: open, no policy selects the pod\n" +
			"  ingress of dev/web: denied, isolated by dev/deny",
		"ops/probe > out tcp/80": "allowed\n  egress of ops/probe: allowed by ops/out egress rule 0 (192.0.2.0/24)",
		"ops/probe > dev/web tcp/80": "denied\n" +
			"  egress of ops/probe: denied, isolated by ops/out; nearest was ops/out egress rule " +
			"0 (192.0.2.0/24): the port matches, the peer doesn't\n" +
			"  ingress of dev/web: denied, isolated by dev/deny",
		"node > dev/web tcp/80":    "allowed\n  a node may always reach its own pods",
		"dev/web > dev/web tcp/80": "allowed\n  a pod may always reach itself",
		"out > out2 tcp/80":        "allowed\n  neither end is a pod that policies govern",
	} {
		f, err := cases.ParseFlow(flow)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Explain(worldFlow(f, 4)).String(); got != want {
			t.Errorf("%s:\n got %s\nwant %s", flow, got, want)
		}
	}
}

// TestExplanationsAreBounded: an answer for people has a length that people read, however many
// policies isolate a pod and whatever a rule lists.
func TestExplanationsAreBounded(t *testing.T) {
	t.Parallel()
	var keys []policy.Key
	for i := range 1000 {
		keys = append(keys, policy.Key{Namespace: "dev", Name: fmt.Sprintf("p%d", i)})
	}
	nearest := cluster.NearMiss{RuleRef: policy.RuleRef{Ref: policy.Ref{Policy: keys[0]},
		Peer: strings.Repeat("10.0.0.0/8\x1b\n", 10_000)}}
	text := cluster.Decision{Isolating: keys, Nearest: &nearest}.String()
	if len(text) > 1000 || !strings.Contains(text, "dev/p9, and 990 more; nearest was dev/p0") ||
		strings.ContainsAny(text, "\x1b\n") {
		t.Errorf("%d bytes: %q", len(text), text[:min(len(text), 2000)])
	}
	if got := policy.List(keys[:2], ","); got != "dev/p0,dev/p1" {
		t.Errorf("two policies: %q", got)
	}
}
