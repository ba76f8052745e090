package cluster_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/test/cases"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

// clusterPolicy is a ClusterNetworkPolicy by its spec.
func clusterPolicy(t *testing.T, name, spec string) policy.Policy {
	t.Helper()
	out, err := cases.Case{ClusterPolicies: map[string]string{name: spec}}.RenderCluster(cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return policy.ParseCluster(out[0])
}

// tierWorld has a pod of namespace a that is attached here, and one of namespace b elsewhere.
func tierWorld() (*cluster.Cluster, policy.Pod, policy.Pod) {
	c := cluster.New(cluster.Options{Node: "n1"})
	c.SetNode(policy.Node{Name: "n1", PodCIDRs: prefixes("10.0.0.0/24")})
	c.SetNode(policy.Node{Name: "n2", PodCIDRs: prefixes("10.0.1.0/24")})
	pod := func(namespace, node, address string) policy.Pod {
		return policy.Pod{ID: selector.Pod{Namespace: namespace, Name: "p", UID: namespace},
			Node: node, Addresses: []netip.Addr{netip.MustParseAddr(address)}}
	}
	here, there := pod("a", "n1", "10.0.0.1"), pod("b", "n2", "10.0.1.1")
	for _, p := range []policy.Pod{here, there} {
		c.SetNamespace(p.ID.Namespace, nil)
		c.SetPod(p)
	}
	c.SetEndpoint(policy.Endpoint{ID: "e", Pod: here.ID, Addresses: here.Addresses})
	return c, here, there
}

// TestGuardrail: the sample denies what it names, and nothing else at the same addresses.
func TestGuardrail(t *testing.T) {
	t.Parallel()
	samples, err := cases.Samples("../../config/samples/cluster")
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(samples, func(c cases.Case) bool { return c.Name == "guardrail.yaml" })
	c := worldCluster()
	for name, spec := range samples[at].ClusterPolicies {
		c.SetPolicy(clusterPolicy(t, name, spec))
	}
	for _, ends := range [][2]string{{"10.244.1.10", "169.254.169.254"},
		{"fd00:10:244:1::10", "fd00:ec2::254"}} {
		for port, allowed := range map[uint16]bool{80: false, 53: true} {
			f := policy.Flow{Source: netip.MustParseAddr(ends[0]), Port: port,
				Destination: netip.MustParseAddr(ends[1]), Protocol: policy.ProtocolTCP}
			if got := c.Explain(f); got.Allowed != allowed {
				t.Errorf("%+v: expected allowed %v: %s", f, allowed, got)
			}
		}
	}
}

// TestAffectedByTheVerdict: who joins what rules deny may be denied now, who leaves it allowed; who
// joins or leaves what is passed either.
func TestAffectedByTheVerdict(t *testing.T) {
	t.Parallel()
	for action, want := range map[string]struct{ joinTightens, leaveTightens bool }{
		"Accept": {false, true}, "Deny": {true, false}, "Pass": {true, true},
	} {
		c, _, there := tierWorld()
		c.SetPolicy(clusterPolicy(t, "x", `{tier: Admin, priority: 0,
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: a}}},
  ingress: [{action: `+action+`, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: b}}}]}]}`))
		c.Take()
		peer := there.Addresses[0]
		c.DeletePod("b", "p")
		left := c.Affected(c.Take())
		c.SetPod(there)
		joined := c.Affected(c.Take())
		if _, tightens := joined.Tightened[peer]; tightens != want.joinTightens {
			t.Errorf("%s: one joins: %+v", action, joined)
		}
		if _, tightens := left.Tightened[peer]; tightens != want.leaveTightens {
			t.Errorf("%s: one leaves: %+v", action, left)
		}
		if joined.Empty() || left.Empty() {
			t.Errorf("%s: nothing is affected: %+v, %+v", action, joined, left)
		}
	}
}

// TestOrderedRulesAreWhole: however many clauses a ClusterNetworkPolicy has and however little is
// taken at once, they come together, in their order; and so do the members of the sets that they
// deny.
func TestOrderedRulesAreWhole(t *testing.T) {
	t.Parallel()
	c, here, there := tierWorld()
	var rules []string
	for i := range 25 {
		var ports []string
		for j := range 25 {
			ports = append(ports, fmt.Sprintf("{tcp: {destinationPort: {number: %d}}}", 1+i+100*j))
		}
		rules = append(rules, fmt.Sprintf(`{action: %s, to: [{namespaces: {}}, {networks: [192.0.2.%d/32]}],
  protocols: [%s]}, {action: %s, to: [{namespaces: {}}], protocols: [%s, {destinationNamedPort: n%d}]}`,
			[]string{"Accept", "Deny", "Pass"}[i%3], i, strings.Join(ports, ", "),
			[]string{"Deny", "Pass", "Accept"}[i%3], strings.Join(ports[:24], ", "), i))
	}
	p := clusterPolicy(t, "x", `{tier: Admin, priority: 0, subject: {namespaces: {}},
  egress: [`+strings.Join(rules, ",\n")+`]}`)
	if len(p.Problems) > 0 {
		t.Fatal(p.Problems)
	}
	want := p.Clauses(policy.Egress)
	c.Take()
	c.SetPolicy(p)
	ch := c.TakeSome(0)
	ref := policy.Ref{Policy: p.Key, Direction: policy.Egress}
	parts, _ := c.Parts(ref)
	if len(want) < 100 || len(parts) != 1 || len(parts[0]) != len(want) {
		t.Fatalf("%d clauses came in %d parts", len(want), len(parts))
	}
	for i, cl := range parts[0] {
		if cl.Of != want[i].Of || cl.Verdict != want[i].Verdict {
			t.Errorf("clause %d is %+v, not %+v", i, cl, want[i])
		}
	}
	for _, v := range []policy.Verdict{policy.Deny, policy.Pass} {
		id := policy.SetID{Kind: policy.PodSet, For: v, Peers: "namespaces all: all"}
		if set := ch.Sets[id]; len(set.Add) != 2 {
			t.Errorf("%s: of %v and %v came %+v", v, here, there, set)
		}
	}
	if e, _ := c.Endpoint("e"); len(e.Egress) != 1 || e.Egress[0].End != policy.Pass {
		t.Errorf("the pod has %+v", e.Egress)
	}
}

// TestNamespaceHasToBeKnown: where there are ClusterNetworkPolicies, a pod whose namespace isn't
// known isn't enforced, and so carries nothing; without them it doesn't matter.
func TestNamespaceHasToBeKnown(t *testing.T) {
	t.Parallel()
	c, _, _ := tierWorld()
	enforced := func() bool {
		c.Take()
		_, ok := c.Endpoint("e")
		return ok
	}
	expect := func(what string, want bool) {
		t.Helper()
		if enforced() != want {
			t.Errorf("%s: it is enforced: %t", what, !want)
		}
	}
	expect("no policy", true)
	c.DeleteNamespace("a")
	expect("no policy, and no namespace", true)
	x := clusterPolicy(t, "x", `{tier: Baseline, priority: 0, subject: {namespaces: {}}}`)
	c.SetPolicy(x)
	expect("a policy, and no namespace", false)
	c.SetPolicy(x)
	c.SetNamespace("a", nil)
	expect("both", true)
	c.DeleteNamespace("a")
	expect("the namespace goes", false)
	c.DeletePolicy(x.Key)
	expect("the policy goes", true)
}

// TestDenialOfATunnelAddress: a CIDR that is denied means the tunnel address in it, too; one that
// is accepted means nodes by their own addresses alone.
func TestDenialOfATunnelAddress(t *testing.T) {
	t.Parallel()
	tunnel := netip.MustParseAddr("10.0.1.0") // of n2
	for rules, want := range map[string]bool{
		`{action: Deny, to: [{networks: [10.0.1.0/24]}]}`: false,
		`{action: Accept, to: [{networks: [10.0.1.0/24]}]},
     {action: Deny, to: [{networks: [10.0.0.0/8]}]}`: false,
		`{action: Accept, to: [{networks: [10.0.1.0/32]}]},
     {action: Deny, to: [{networks: [10.0.0.0/8]}]}`: true,
	} {
		c, here, _ := tierWorld()
		r := newReplica()
		c.SetPolicy(clusterPolicy(t, "x", `{tier: Admin, priority: 0, subject: {namespaces: {}},
  egress: [`+rules+`]}`))
		if err := r.apply(c, c.Take()); err != nil {
			t.Fatal(err)
		}
		f := policy.Flow{Source: here.Addresses[0], Destination: tunnel,
			Protocol: policy.ProtocolTCP, Port: 80}
		e, _ := c.Endpoint("e")
		m := c.Snapshot().Meaning().Allowed(here.ID, policy.Egress, tunnel)
		if a := c.Explain(f); a.Allowed != want || r.allows(e, policy.Egress, f) != want ||
			m.IsAll() != want {
			t.Errorf("%s:\n%s\nthe meaning says %+v", rules, a, m)
		}
	}
}

// TestExplainTiers: which policy, rule and tier decides, what passed it on, and what came nearest.
func TestExplainTiers(t *testing.T) {
	t.Parallel()
	c, here, there := tierWorld()
	explain := func(port uint16) string {
		a := c.Explain(policy.Flow{Source: there.Addresses[0], Destination: here.Addresses[0],
			Protocol: policy.ProtocolTCP, Port: port})
		return a.Ingress.String()
	}
	c.SetPolicy(clusterPolicy(t, "guard", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [
  {action: Accept, name: "monitoring", from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 90}}}]},
  {action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 91}}}]},
  {action: Pass, name: "a\nb", from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 92}}}]}]}`))
	for port, want := range map[uint16]string{
		90: `allowed by Admin policy guard ingress rule 0 "monitoring" (namespaces all: all)`,
		91: `denied by Admin policy guard ingress rule 1 (namespaces all: all); ` +
			`nearest was Admin policy guard ingress rule 0 "monitoring" (namespaces all: all): ` +
			`the peer matches, the port doesn't`,
		92: `passed by Admin policy guard ingress rule 2 "a\nb" (namespaces all: all), ` +
			`and nothing after it denies`,
		93: `allowed, no rule matches of guard`,
	} {
		if got := explain(port); got != "ingress of a/p: "+want {
			t.Errorf("port %d:\n got %s\nwant %s", port, got, want)
		}
	}
	np, err := cases.RenderPolicy("a/np", `{podSelector: {}}`, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetPolicy(policy.Parse(np))
	c.SetPolicy(clusterPolicy(t, "default", `{tier: Baseline, priority: 1, subject: {namespaces: {}},
  ingress: [{action: Deny, from: [{namespaces: {}}]}]}`))
	if got := explain(93); !strings.HasPrefix(got, "ingress of a/p: denied, isolated by a/np") {
		t.Error(got)
	}
	c.DeletePolicy(policy.Key{Namespace: "a", Name: "np"})
	got := explain(92)
	if !strings.Contains(got, `passed by Admin policy guard ingress rule 2`) ||
		!strings.Contains(got, `denied by Baseline policy default ingress rule 0`) {
		t.Error(got)
	}
}

// TestTraffic: the algebra of classes of traffic is that of sets.
func TestTraffic(t *testing.T) {
	t.Parallel()
	ports := func(first, last uint16) cluster.Traffic {
		return cluster.Traffic{Ports: []selector.PortRange{{Protocol: policy.ProtocolTCP,
			First: first, Last: last}}}
	}
	none := func(t cluster.Traffic) bool { return !t.Others && len(t.Ports) == 0 }
	all := cluster.All()
	for what, same := range map[string]bool{
		"all but nothing":   all.Minus(cluster.Traffic{}).IsAll(),
		"nothing but all":   none(cluster.Traffic{}.Minus(all)),
		"all but all":       none(all.Minus(all)),
		"the rest and back": all.Minus(ports(80, 90)).Or(ports(80, 90)).IsAll(),
		"but the last":      !all.Minus(ports(65535, 65535)).IsAll(),
		"but the first":     !all.Minus(ports(0, 0)).IsAll(),
		"both": slices.Equal(ports(1, 80).And(ports(80, 90).Or(ports(0, 1))).Ports,
			ports(1, 1).Or(ports(80, 80)).Ports),
		"others": !all.Minus(cluster.Traffic{Others: true}).Others,
	} {
		if !same {
			t.Error(what)
		}
	}
}
