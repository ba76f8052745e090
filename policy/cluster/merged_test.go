package cluster_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/test/cases"
)

// The world of these tests: a server on this node, which policies isolate that all have its
// podSelector, and clients on another, each with an app of its own.
const (
	mergedServer  = "10.244.1.100"
	mergedDB      = "10.244.1.101" // which other policies isolate
	mergedClients = 6
)

func mergedClient(i int) string { return fmt.Sprintf("10.244.2.%d", 10+i) }

func mergedWorld(opts cluster.Options) *cluster.Cluster {
	opts.Node = "here"
	c := cluster.New(opts)
	c.SetNamespace("dev", nil)
	c.SetNode(hereNode)
	c.SetNode(nodeAt("there", "2"))
	server := pod("server", "u0", "server", mergedServer)
	server.Ports = policy.PodPortsOf(policy.PodPort{Number: 81,
		NamedPort: policy.NamedPort{Protocol: policy.ProtocolTCP, Name: "http"}})
	db := pod("db", "u00", "db", mergedDB)
	for address, p := range map[string]policy.Pod{mergedServer: server, mergedDB: db} {
		c.SetPod(p)
		c.SetEndpoint(attach(p, address))
	}
	for i := range mergedClients {
		p := pod(fmt.Sprintf("client-%d", i), fmt.Sprintf("u%d", 1+i), fmt.Sprintf("a%d", i),
			mergedClient(i))
		p.Node = "there"
		c.SetPod(p)
	}
	return c
}

// mergedPolicy lets peers and ports through, which are as in a manifest.
func mergedPolicy(t rapid.TB, name, peers, ports string) policy.Policy {
	t.Helper()
	return policy.Parse(render(t, "dev/"+name, fmt.Sprintf(
		`{podSelector: {matchLabels: {app: server}}, ingress: [{from: [%s], ports: [%s]}]}`,
		peers, ports)))
}

func podsOf(i int) string { return fmt.Sprintf("{podSelector: {matchLabels: {app: a%d}}}", i) }

// Of many policies that select the same pods there is one clause for each list of ports, and one
// that comes, changes or goes makes only its own peers join or leave.
func TestMerged(t *testing.T) {
	t.Parallel()
	c := mergedWorld(cluster.Options{MergeFrom: 3})
	set := func(name, peers, ports string) { c.SetPolicy(mergedPolicy(t, name, peers, ports)) }
	set("p0", podsOf(0), "{port: 80}")
	set("p1", podsOf(1)+", {ipBlock: {cidr: 192.0.2.0/24}}", "{port: 80}")
	c.Take()
	if got := rulesOf(c); !slices.Equal(got, []string{"dev/p0 rule 0", "dev/p1 rule 0",
		"dev/p1 rule 0"}) {
		t.Errorf("two policies have the rules %q", got)
	}
	set("p2", podsOf(2)+", {ipBlock: {cidr: 192.0.2.0/24}}, {namespaceSelector: {}}", "{port: 80}")
	set("p3", podsOf(2), "{port: 81}")
	c.Take()
	if got := rulesOf(c); !slices.Equal(got, []string{"dev/p0 rule 0, dev/p1 rule 0",
		"dev/p1 rule 0, dev/p2 rule 0", "dev/p2 rule 0", "dev/p3 rule 0"}) {
		t.Errorf("four policies have the rules %q", got)
	}

	for _, step := range []struct {
		what        string
		do          func()
		join, leave []string
	}{
		{"a policy comes", func() { set("p4", podsOf(3), "{port: 81}") }, []string{mergedClient(3)}, nil},
		{"with peers that are there", func() { set("p5", podsOf(3), "{port: 81}") }, nil, nil},
		{"it changes", func() { set("p4", podsOf(4), "{port: 81}") }, []string{mergedClient(4)}, nil},
		{"the other goes", func() { c.DeletePolicy(policy.Key{Namespace: "dev", Name: "p5"}) }, nil,
			[]string{mergedClient(3)}},
		{"blocks change",
			func() { set("p1", podsOf(1)+", {ipBlock: {cidr: 203.0.113.0/24}}", "{port: 80}") },
			[]string{"203.0.113.0"}, nil},
	} {
		step.do()
		var join, leave []string
		for id, ch := range c.Take().Sets {
			if ch.Created || ch.Deleted {
				t.Errorf("%s: set %s is made (%v) or deleted (%v)", step.what, id, ch.Created,
					ch.Deleted)
			}
			for _, m := range ch.Add {
				join = append(join, m.First.String())
			}
			for _, m := range ch.Remove {
				leave = append(leave, m.First.String())
			}
		}
		if !slices.Equal(join, step.join) || !slices.Equal(leave, step.leave) {
			t.Errorf("%s: %q join and %q leave, want %q and %q", step.what, join, leave, step.join,
				step.leave)
		}
	}
}

// Where a policy is emptied for its cost, those that it is merged with go on.
func TestMergedWithAnEmptied(t *testing.T) {
	t.Parallel()
	c, r := boundsWorld(cluster.Options{MergeFrom: 1, Bounds: cluster.Bounds{Clauses: 100}})
	c.SetPolicy(manyRules(t, "tenant/large", 40))
	c.SetPolicy(manyRules(t, "tenant/small", 30))
	other, err := cases.RenderPolicy("tenant/other", `{podSelector: {matchLabels: {app: web}},
		ingress: [`+strings.Repeat("{ports: [{port: 1000}]},", 35)+`]}`, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, large bool) {
		t.Helper()
		if err := r.apply(c, c.Take()); err != nil {
			t.Fatal(err)
		}
		if !opens(c, r, "tenant", 20) || opens(c, r, "tenant", 35) != large {
			t.Errorf("%s: port 20, of both, is open: %v; port 35, of the large one: %v", what,
				opens(c, r, "tenant", 20), opens(c, r, "tenant", 35))
		}
	}
	check("at first", true)
	c.SetPolicy(policy.Parse(other))
	check("with too many", false)
	c.DeletePolicy(policy.Key{Namespace: "tenant", Name: "other"})
	check("with room again", true)
}

// Where a policy is one more than fits into the parts that there are, those that are there go on.
func TestMergedPartsDividedAnew(t *testing.T) {
	t.Parallel()
	const fit = 64
	c, r := mergedWorld(cluster.Options{MergeFrom: 1}), newReplica()
	add := func(i int) {
		c.SetPolicy(mergedPolicy(t, fmt.Sprintf("p%d", i), podsOf(0),
			fmt.Sprintf("{port: %d}", 1000+i)))
	}
	for i := range fit {
		add(i)
	}
	take := func(budget int) {
		if err := r.apply(c, c.TakeSome(budget)); err != nil {
			t.Fatal(err)
		}
	}
	take(cluster.Everything)
	for more := range 3 {
		for i := range fit {
			f := policy.Flow{Source: netip.MustParseAddr(mergedClient(0)),
				Destination: netip.MustParseAddr(mergedServer), Protocol: policy.ProtocolTCP,
				Port: uint16(1000 + i)}
			if !r.allowsFlow(f, hereNode) {
				t.Errorf("with %d policies more, port %d isn't open", more, f.Port)
			}
		}
		add(fit + more)
		take(1)
	}
}

// BenchmarkPolicyAmongAlike: a policy comes and goes that selects the same pods as many others.
func BenchmarkPolicyAmongAlike(b *testing.B) {
	for _, others := range []int{1, 10, 100, 500} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			c := mergedWorld(cluster.Options{})
			for i := range others {
				c.SetPolicy(mergedPolicy(b, fmt.Sprintf("p%d", i), podsOf(i), "{port: 80}"))
			}
			c.Take()
			one := mergedPolicy(b, "one", podsOf(0), "{port: 80}")
			for b.Loop() {
				c.SetPolicy(one)
				c.Take()
				c.DeletePolicy(one.Key)
				c.Take()
			}
		})
	}
}

// rulesOf lists the rules that clauses are of.
func rulesOf(c *cluster.Cluster) (out []string) {
	for _, ref := range c.All().Rules {
		parts, _ := c.Parts(ref)
		for _, cl := range slices.Concat(parts...) {
			out = append(out, cl.Of)
		}
	}
	slices.Sort(out)
	return out
}

// Whatever becomes of policies whose rules are merged: on the way nothing passes that doesn't in
// the end, what other policies allow goes on while one is added, and the end is that of policies
// that aren't merged.
func TestMergedOnTheWay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c, r := mergedWorld(cluster.Options{MergeFrom: 1}), newReplica()
		policies := map[string]policy.Policy{"none": mergedPolicy(t, "none", podsOf(9), "")}
		c.SetPolicy(policies["none"])
		if err := r.apply(c, c.Take()); err != nil {
			t.Fatal(err)
		}
		for step := range rapid.IntRange(1, 8).Draw(t, "steps") {
			was := mergedFlows(r)
			addsOnly := rapid.Bool().Draw(t, "adds only")
			for i := range rapid.IntRange(1, 3).Draw(t, "changes") {
				name := fmt.Sprintf("p%d", rapid.IntRange(0, 4).Draw(t, "policy"))
				if addsOnly {
					name = fmt.Sprintf("added-%d-%d", step, i)
				}
				if !addsOnly && rapid.Bool().Draw(t, "delete") {
					delete(policies, name)
					c.DeletePolicy(policy.Key{Namespace: "dev", Name: name})
					continue
				}
				policies[name] = drawMergedPolicy(t, name)
				c.SetPolicy(policies[name])
			}
			end := unmergedFlows(t, policies)
			c.SetPolicy(policy.Parse(render(t, "dev/before", fmt.Sprintf(
				`{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: %d}]}]}`, 1+step))))
			for first := true; first || c.Backlog(); first = false {
				budget := rapid.IntRange(1, 70).Draw(t, "budget")
				if err := r.apply(c, c.TakeSome(budget)); err != nil {
					t.Fatal(err)
				}
				if err := c.CheckCounts(); err != nil {
					t.Fatal(err)
				}
				for f, passes := range mergedFlows(r) {
					if passes && !end[f] {
						t.Fatalf("%v passes on the way, and not in the end", f)
					}
					if addsOnly && was[f] && !passes {
						t.Fatalf("%v passed, and doesn't while policies are added", f)
					}
				}
			}
			for f, passes := range mergedFlows(r) {
				if passes != end[f] {
					t.Fatalf("%v passes: %v, but without merging %v", f, passes, end[f])
				}
			}
		}
	})
}

func drawMergedPolicy(t *rapid.T, name string) policy.Policy {
	var peers []string
	for range rapid.IntRange(0, 3).Draw(t, "peers") {
		peers = append(peers, rapid.SampledFrom([]string{podsOf(0), podsOf(1), podsOf(2), podsOf(3),
			"{namespaceSelector: {}}", "{ipBlock: {cidr: 10.244.2.10/31}}",
			"{ipBlock: {cidr: 10.244.2.12/30, except: [10.244.2.13/32]}}",
			"{ipBlock: {cidr: '::/0'}}"}).Draw(t, "peer"))
	}
	ports := rapid.SampledFrom([]string{"", "{port: 80}", "{port: 81}", "{port: 80}, {port: 81}",
		"{port: 80, endPort: 90}", "{port: http}"}).Draw(t, "ports")
	return mergedPolicy(t, name, strings.Join(peers, ", "), ports)
}

// mergedFlows says of each flow from a client to the server whether it passes.
func mergedFlows(r *replica) map[policy.Flow]bool {
	out := map[policy.Flow]bool{}
	for i := range mergedClients {
		for _, port := range []uint16{79, 80, 81, 85} {
			f := policy.Flow{Source: netip.MustParseAddr(mergedClient(i)),
				Destination: netip.MustParseAddr(mergedServer), Protocol: policy.ProtocolTCP,
				Port: port}
			out[f] = r.allowsFlow(f, hereNode)
		}
	}
	return out
}

// unmergedFlows is the same of policies that aren't merged.
func unmergedFlows(t *rapid.T, policies map[string]policy.Policy) map[policy.Flow]bool {
	const never = 1000
	c, r := mergedWorld(cluster.Options{MergeFrom: never}), newReplica()
	for _, p := range policies {
		c.SetPolicy(p)
	}
	if err := r.apply(c, c.Take()); err != nil {
		t.Fatal(err)
	}
	return mergedFlows(r)
}
