package ruleset_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/benchcluster"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/testnet"
)

// mostRules is how many rules a direction of a ClusterNetworkPolicy can have, and peers a rule.
const mostRules = 25

func benchClusterPolicy(b *testing.B, name, spec string) policy.Policy {
	b.Helper()
	cnp, err := cases.RenderClusterPolicy(name, spec, cases.Addr)
	if err != nil {
		b.Fatal(err)
	}
	p := policy.ParseCluster(cnp)
	if len(p.Problems) > 0 {
		b.Fatal(p.Problems)
	}
	return p
}

// BenchmarkAddLocalPodUnderTiers: a pod of this node comes to a hundred, all of which so many rules
// of ClusterNetworkPolicies concern. Of those that deny each has a way to each pod's chain of
// denials, and kernels check all ways again when one is added.
func BenchmarkAddLocalPodUnderTiers(b *testing.B) {
	for _, c := range []struct {
		action string
		rules  int
	}{{"Deny", 0}, {"Accept", 25}, {"Deny", 25}, {"Deny", 100}} {
		b.Run(fmt.Sprintf("%s=%d", strings.ToLower(c.action), c.rules), func(b *testing.B) {
			world := benchcluster.New(10, 1000)
			for first := 0; first < c.rules; first += mostRules {
				var rules []string
				for i := range mostRules {
					rules = append(rules, fmt.Sprintf(
						"{action: %s, from: [{pods: {podSelector: {matchLabels: {pod: pod-%d}}}}]}",
						c.action, 200+first+i))
				}
				world.SetPolicy(benchClusterPolicy(b, fmt.Sprintf("guard-%d", first), fmt.Sprintf(
					"{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [%s]}",
					strings.Join(rules, ", "))))
			}
			benchChange(b, world, comes, leaves)
		})
	}
}

// BenchmarkFirstPacketUnderTiers: BenchmarkFirstPacket with ten NetworkPolicies, and before them
// rules of a ClusterNetworkPolicy of which none matches. The reference has none.
func BenchmarkFirstPacketUnderTiers(b *testing.B) {
	for _, rules := range []int{0, 1, 10, mostRules} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) {
			node := testnet.NewNode(b)
			hosts, c := benchPair(node)
			ofPeers := func(int) (own, port int) { return 0, 9000 }
			for i, spec := range benchPolicies(10, ofPeers) {
				c.SetPolicy(benchPolicy(b, i, spec))
			}
			if rules > 0 {
				var texts []string
				for i := range rules {
					texts = append(texts, fmt.Sprintf(
						"{action: Deny, from: [{pods: {podSelector: {matchLabels: {app: nobody-%d}}}}]}",
						i))
				}
				c.SetPolicy(benchClusterPolicy(b, "guard", fmt.Sprintf(
					"{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [%s]}",
					strings.Join(texts, ", "))))
			}
			sink := hosts[1].Sink(testnet.UDP, 9000)
			benchFlood(b, node, c, hosts, 9000)
			if sink.Received() == 0 {
				b.Fatal("no packet arrived")
			}
		})
	}
}

// BenchmarkManyRules: policies of so many rules with so many peers each come to a kernel that has
// nothing: as NetworkPolicies, the reference, and as ClusterNetworkPolicies.
func BenchmarkManyRules(b *testing.B) {
	var plain, tiered []policy.Policy
	actions := [...]string{"Accept", "Deny", "Pass"}
	for i := range mostRules {
		plain = append(plain, benchPolicy(b, i, `{podSelector: {matchLabels: {app: "1"}},
			policyTypes: [Egress], egress: [`+manyRules(i, func(int) string { return "" },
			"{ipBlock: {cidr: %s}}",
			"{namespaceSelector: {}, podSelector: {matchLabels: {pod: pod-%d}}}")+`]}`))
		tiered = append(tiered, benchClusterPolicy(b, fmt.Sprintf("guard-%d", i), `{tier: Admin,
			priority: 1, subject: {pods: {podSelector: {matchLabels: {app: "1"}}}}, egress: [`+
			manyRules(i, func(rule int) string { return "action: " + actions[rule%3] + ", " },
				"{networks: [%s]}", "{pods: {podSelector: {matchLabels: {pod: pod-%d}}}}")+`]}`))
	}
	b.Run("NetworkPolicies", func(b *testing.B) { benchFirstApply(b, plain) })
	b.Run("ClusterNetworkPolicies", func(b *testing.B) { benchFirstApply(b, tiered) })
}

// manyRules are the rules of policy i, which all have other peers: pods and blocks in turn.
func manyRules(i int, head func(rule int) string, block, pods string) string {
	rules := make([]string, mostRules)
	for j := range rules {
		peers := make([]string, mostRules)
		for k := range peers {
			if n := (i*mostRules+j)*mostRules + k; n%2 == 0 {
				peers[k] = fmt.Sprintf(block, fmt.Sprintf("10.%d.%d.0/24", n>>8, n&0xff))
			} else {
				peers[k] = fmt.Sprintf(pods, n%1000)
			}
		}
		rules[j] = "{" + head(j) + "to: [" + strings.Join(peers, ", ") + "]}"
	}
	return strings.Join(rules, ", ")
}

func benchFirstApply(b *testing.B, policies []policy.Policy) {
	b.Helper()
	node := testnet.NewNode(b)
	for b.Loop() {
		b.StopTimer()
		c := benchcluster.New(0, 1000)
		b.StartTimer()
		for _, p := range policies {
			c.SetPolicy(p)
		}
		c.Take()
		applyToNothing(b, node, c)
	}
}
