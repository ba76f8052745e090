package enforcer

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/cases"
)

// clusterPolicies replaces all policies by ClusterNetworkPolicies.
func (w *denialWorld) clusterPolicies(specs map[string]string) {
	w.t.Helper()
	rendered, err := cases.Case{ClusterPolicies: specs}.RenderCluster(cases.Addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.commit(func(m *Model) {
		m.SetNamespace("dev", nil)
		for _, k := range m.Policies() {
			m.DeletePolicy(k)
		}
		for _, cnp := range rendered {
			m.SetPolicy(policy.ParseCluster(cnp))
		}
	})
}

const (
	guardOther = `{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [
  {action: Deny, name: other, to: [{networks: [198.51.100.0/24]}]},
  {action: Deny, name: outside, to: [{networks: [192.0.2.0/24, "2001:db8::/32"]}]}]}`
	guardPass = `{tier: Admin, priority: 2, subject: {namespaces: {}}, egress: [
  {action: Pass, to: [{namespaces: {}}]}, {action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}]}`
)

func deniedByRule(rule string, n4, n6 int) string {
	return fmt.Sprintf("%s: %d packets %d bytes", rule, n4+n6, n4*size4+n6*size6)
}

// TestDenialsOfRulesAreCounted: what a rule denies is counted for the rule, also while policies
// change, and not for the pod: that counts what its isolation denies.
func TestDenialsOfRulesAreCounted(t *testing.T) {
	t.Parallel()
	w := newDenialWorld(t, ruleset.Config{})
	w.send(1, 4, true) // control
	const first = "Admin guard egress rule 0"
	const second = "Admin guard egress rule 1"
	w.clusterPolicies(map[string]string{"guard": guardOther})
	w.expect("at first", deniedByRule(first, 0, 0),
		deniedByRule(second, 0, 0))
	w.send(3, 4, true)
	w.send(2, 6, true)
	w.send(1, 4, false) // control: ingress is open
	w.expect("denied", deniedByRule(first, 0, 0),
		deniedByRule(second, 3, 2))
	w.clusterPolicies(map[string]string{"guard": guardOther, "more": guardPass})
	w.send(1, 4, true)
	w.expect("beside another policy", deniedByRule(first, 0, 0),
		deniedByRule(second, 4, 2), deniedByRule("Admin more egress rule 1", 0, 0))
	w.clusterPolicies(map[string]string{"more": guardPass})
	w.send(1, 6, true)
	w.expect("by the other one", deniedByRule("Admin more egress rule 1", 0, 1))
}

// TestDenialsByRulesAreReported: the line says by which rule, of which policy and tier.
func TestDenialsByRulesAreReported(t *testing.T) {
	t.Parallel()
	w := newDenialWorld(t, ruleset.Config{LogGroup: 9, LogPerSecond: 1000})
	l := w.startLog()
	w.clusterPolicies(map[string]string{"guard": guardOther})
	err := w.pod.SendUDP(netip.AddrPortFrom(w.pod.Addr4(), 4242),
		netip.AddrPortFrom(w.out.Addr4(), 53))
	if err != nil {
		t.Fatal(err)
	}
	w.expectLine(l, `"msg"="Denied" "direction"="egress"`, `"sourcePod"="dev/web"`, `"port"=53`,
		`"tier"="Admin" "policy"="guard" "rule"=1 "ruleName"="outside"`)
}
