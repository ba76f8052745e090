package cluster_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/randomcluster"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// TestTakeSome: however little is taken at once, nothing passes on the way that doesn't pass in the
// end, and the end is where Take leads at once.
func TestTakeSome(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		opts := randomcluster.Options(t)
		c, r, w := cluster.New(opts), newReplica(), randomcluster.NewWorld(opts)
		for range rapid.IntRange(1, 3).Draw(t, "rounds") {
			for range rapid.IntRange(1, 15).Draw(t, "events") {
				w.Event(t, c)
			}
			end := newReplica()
			scratch := w.Build()
			if err := end.apply(scratch, scratch.Take()); err != nil {
				t.Fatal(err)
			}
			for steps := 0; steps == 0 || c.Backlog(); steps++ {
				if steps > 1000 {
					t.Fatal("it never ends")
				}
				budget := rapid.IntRange(1, 150).Draw(t, "budget")
				if err := r.apply(c, c.TakeSome(budget)); err != nil {
					t.Fatal(err)
				}
				checkAllowsLess(t, r, end)
				if err := c.CheckCounts(); err != nil {
					t.Fatal(err)
				}
			}
		}
		checkSame(t, r, w)
		checkReplica(t, c, r)
	})
}

// checkAllowsLess fails if something passes in a state on the way that doesn't in the end.
func checkAllowsLess(t *rapid.T, now, end *replica) {
	ends := append(slices.Clone(randomcluster.Addresses), randomcluster.Strangers...)
	for _, e := range now.endpoints {
		for _, peer := range ends {
			for _, protocol := range []uint8{1, policy.ProtocolTCP, policy.ProtocolUDP} {
				for _, port := range randomcluster.Ports {
					for _, own := range e.Addresses {
						in, out := policy.Flow{Source: peer, Destination: own, Protocol: protocol,
							Port: port}, policy.Flow{Source: own, Destination: peer,
							Protocol: protocol, Port: port}
						if now.allows(e, policy.Ingress, in) &&
							!end.allows(end.endpoints[e.ID], policy.Ingress, in) {
							t.Fatalf("%v passes on the way, and not in the end", in)
						}
						if now.allows(e, policy.Egress, out) &&
							!end.allows(end.endpoints[e.ID], policy.Egress, out) {
							t.Fatalf("%v passes on the way, and not in the end", out)
						}
					}
				}
			}
		}
	}
}

// boundsWorld has a pod in each of two namespaces, both attached here.
func boundsWorld(opts cluster.Options) (*cluster.Cluster, *replica) {
	opts.Node = "n1"
	c := cluster.New(opts)
	for name, cidr := range map[string]string{"n1": "10.244.0.0/24", "n2": "10.244.1.0/24"} {
		c.SetNode(policy.Node{Name: name, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(cidr)}})
	}
	for i, namespace := range []string{"tenant", "other"} {
		c.SetNamespace(namespace, nil)
		p := policy.Pod{ID: selector.Pod{Namespace: namespace, Name: "pod", UID: namespace},
			Labels: selector.LabelSetOf(map[string]string{"app": "web"}), Node: "n1",
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 0, byte(1 + i)})}}
		c.SetPod(p)
		c.SetEndpoint(policy.Endpoint{ID: namespace, Pod: p.ID,
			Interface: names.PodLink + namespace, Addresses: p.Addresses})
	}
	return c, newReplica()
}

// manyRules is a policy with one rule for each of n ports, from 1 on.
func manyRules(t *testing.T, name string, n int) policy.Policy {
	t.Helper()
	rules := ""
	for i := range n {
		rules += fmt.Sprintf("{from: [{ipBlock: {cidr: 192.0.2.%d/32}}], ports: [{port: %d}]},",
			i%256, 1+i)
	}
	np, err := cases.RenderPolicy(name, `{podSelector: {}, ingress: [`+rules+`]}`, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return policy.Parse(np)
}

// opens reports whether port n is open to whom manyRules opens it.
func opens(c *cluster.Cluster, r *replica, endpoint string, n int) bool {
	e, _ := c.Endpoint(endpoint)
	from := netip.AddrFrom4([4]byte{192, 0, 2, byte((n - 1) % 256)})
	f := policy.Flow{Source: from, Destination: e.Addresses[0], Protocol: policy.ProtocolTCP,
		Port: uint16(n)}
	allowed := r.allows(e, policy.Ingress, f)
	if explained := c.Explain(f).Ingress; explained == nil || explained.Allowed != allowed {
		panic(fmt.Sprintf("%v: Explain says %v, what was compiled %v", f, explained, allowed))
	}
	return allowed
}

// TestWhatIsLeftWaits: rules whose change has to wait let nobody in by what they have lost, nor a
// pod that has joined their sets since.
func TestWhatIsLeftWaits(t *testing.T) {
	t.Parallel()
	c, r := boundsWorld(cluster.Options{})
	set := func(name, rules string) {
		np, err := cases.RenderPolicy(name, `{podSelector: {}, ingress: [`+rules+`]}`, cases.Addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetPolicy(policy.Parse(np))
	}
	peer := func(name string, last byte) netip.Addr {
		p := policy.Pod{ID: selector.Pod{Namespace: "tenant", Name: name, UID: name}, Node: "n2",
			Labels:    selector.LabelSetOf(map[string]string{"x": "1"}),
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 1, last})}}
		c.SetPod(p)
		return p.Addresses[0]
	}
	take := func(budget int) {
		if err := r.apply(c, c.TakeSome(budget)); err != nil {
			t.Fatal(err)
		}
	}
	passes := func(from netip.Addr, port uint16) bool {
		e, _ := c.Endpoint("tenant")
		return r.allows(e, policy.Ingress,
			policy.Flow{Source: from, Destination: e.Addresses[0], Protocol: policy.ProtocolTCP,
				Port: port})
	}
	old := peer("old", 1)
	set("tenant/a", `{from: [{podSelector: {matchLabels: {x: "1"}}}], ports: [{port: 80}]}`)
	take(cluster.Everything)
	if !passes(old, 80) {
		t.Fatal("control: the first form of the policy lets nobody in")
	}
	young := peer("young", 2)
	set("tenant/a",
		`{from: [{podSelector: {matchLabels: {x: "1"}}}], ports: [{port: 443}]}, {ports: [{port: 444}]}`)
	set("tenant/b", `{ports: [{port: 445}]}`)
	take(1)
	if !passes(young, 445) || !c.Backlog() || !c.Waiting("tenant") {
		t.Error("the smaller policy isn't there first")
	}
	for _, from := range []netip.Addr{old, young} {
		if passes(from, 80) {
			t.Errorf("%s gets in by rules that are gone", from)
		}
	}
	take(cluster.Everything)
	if !passes(old, 443) || !passes(young, 443) || c.Backlog() || c.Waiting("tenant") {
		t.Error("the rest didn't come")
	}
}

// TestPolicyBound: a policy with more clauses than any honest one isolates and allows nothing, and
// says so.
func TestPolicyBound(t *testing.T) {
	t.Parallel()
	for n, open := range map[int]bool{policy.MaxPolicyClauses: true,
		policy.MaxPolicyClauses + 1: false} {
		c, r := boundsWorld(cluster.Options{})
		p := manyRules(t, "tenant/p", n)
		if told := len(p.Problems) == 1 && p.Problems[0].Field == "spec"; told == open {
			t.Errorf("%d clauses: problems %v", n, p.Problems)
		}
		c.SetPolicy(p)
		if err := r.apply(c, c.Take()); err != nil {
			t.Fatal(err)
		}
		if got := opens(c, r, "tenant", 7); got != open {
			t.Errorf("%d clauses: open %v, want %v", n, got, open)
		}
	}
}

// TestNamespaceBound: where the policies of a namespace cost too much, the costliest are emptied,
// nobody else's, and are back when there is room.
func TestNamespaceBound(t *testing.T) {
	t.Parallel()
	for _, how := range []struct{ budget, mergeFrom int }{{cluster.Everything, 8}, {1000, 8},
		{cluster.Everything, 1}, {1000, 1}} {
		c, r := boundsWorld(cluster.Options{MergeFrom: how.mergeFrom,
			Bounds: cluster.Bounds{Clauses: 1000}})
		take := func() {
			t.Helper()
			for again := true; again; again = c.Backlog() {
				if err := r.apply(c, c.TakeSome(how.budget)); err != nil {
					t.Fatal(err)
				}
			}
		}
		check := func(what, shed string, open map[string]bool) {
			t.Helper()
			take()
			if got := fmt.Sprint(c.Shed()); got != shed {
				t.Errorf("%s: emptied %s, want %s", what, got, shed)
			}
			for endpoint, want := range open {
				if got := opens(c, r, endpoint, 300); got != want {
					t.Errorf("%s: port 300 of %s open %v, want %v", what, endpoint, got, want)
				}
			}
		}
		c.SetPolicy(manyRules(t, "tenant/large", 600))
		c.SetPolicy(manyRules(t, "tenant/small", 200))
		c.SetPolicy(manyRules(t, "other/large", 700))
		check("within", "[]", map[string]bool{"tenant": true, "other": true})
		c.SetPolicy(manyRules(t, "tenant/more", 250))
		check("beyond", "[tenant/large]", map[string]bool{"tenant": false, "other": true})
		if !opens(c, r, "tenant", 200) {
			t.Error("beyond: the small policy doesn't count")
		}
		c.DeletePolicy(policy.Key{Namespace: "tenant", Name: "more"})
		check("room again", "[]", map[string]bool{"tenant": true, "other": true})
		c.DeleteEndpoint("tenant")
		c.SetPolicy(manyRules(t, "tenant/more", 900))
		check("nobody's", "[]", map[string]bool{"other": true})
	}
}

// TestMemberBound: pods that come later count as well.
func TestMemberBound(t *testing.T) {
	t.Parallel()
	for _, mergeFrom := range []int{1, 8} {
		t.Run(fmt.Sprintf("merged from %d", mergeFrom), func(t *testing.T) {
			t.Parallel()
			testMemberBound(t, mergeFrom)
		})
	}
}

// TestMemberBoundOfMerged: of policies that are merged, in several parts, none of those that are
// emptied has a rule left.
func TestMemberBoundOfMerged(t *testing.T) {
	t.Parallel()
	const policies, rules, bound = 10, 20, 100
	c, r := boundsWorld(cluster.Options{MergeFrom: 1, Bounds: cluster.Bounds{Members: bound}})
	for i := range policies {
		list := ""
		for j := range rules {
			list += fmt.Sprintf("{ports: [{port: %d}], from: [{namespaceSelector: {}, podSelector: "+
				"{matchExpressions: [{key: x%d-%d, operator: DoesNotExist}]}}]},", 1+j, i, j)
		}
		np, err := cases.RenderPolicy(fmt.Sprintf("tenant/p%d", i),
			`{podSelector: {}, ingress: [`+list+`]}`, cases.Addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetPolicy(policy.Parse(np))
	}
	for again := true; again; again = c.Backlog() {
		if err := r.apply(c, c.Take()); err != nil {
			t.Fatal(err)
		}
	}
	shed := c.Shed()
	if len(shed) == 0 || len(shed) == policies {
		t.Fatalf("control: emptied are %v", shed)
	}
	of := strings.Join(rulesOf(c), "\n")
	for _, k := range shed {
		if strings.Contains(of, k.String()+" rule") {
			t.Errorf("%s is emptied, and has rules", k)
		}
	}
	members := 0
	for id := range r.sets {
		members += len(r.sets[id])
	}
	if members > bound {
		t.Errorf("%d members, more than %d", members, bound)
	}
}

func testMemberBound(t *testing.T, mergeFrom int) {
	t.Helper()
	c, r := boundsWorld(cluster.Options{MergeFrom: mergeFrom, Bounds: cluster.Bounds{Members: 10}})
	set := func(name, labels string) {
		np, err := cases.RenderPolicy(name,
			`{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: `+labels+`, operator: DoesNotExist}]}}]}]}`, cases.Addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetPolicy(policy.Parse(np))
	}
	for _, k := range []string{"a", "b", "c"} {
		set("tenant/"+k, k)
		set("tenant/same-"+k, "same") // equal sets count once
	}
	set("other/p", "a")
	take := func() {
		if err := r.apply(c, c.Take()); err != nil {
			t.Fatal(err)
		}
	}
	take()
	if got := c.Shed(); len(got) > 0 {
		t.Errorf("4 sets of 2 members: emptied %v", got)
	}
	p := policy.Pod{ID: selector.Pod{Namespace: "other", Name: "more", UID: "more"}, Node: "n2",
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.1")}}
	c.SetPod(p)
	take()
	if got := fmt.Sprint(c.Shed()); got != "[tenant/same-a tenant/same-b tenant/same-c]" {
		t.Errorf("4 sets of 3 members: emptied %s, want those of one set", got)
	}
	sum := 0
	for id := range r.sets {
		sum += len(r.sets[id])
	}
	if sum != 3*3 {
		t.Errorf("%d members in all, want those of the three sets that are left, one of which is "+
			"the other namespace's as well", sum)
	}
}
