package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/testnet"
)

// benchLocalPods is how many pods the node of the benchmarks runs, of the
// 110 that a node usually can.
const benchLocalPods = 100

// benchCluster fills a cluster: pods in namespaces of 100, of which the first
// hundred run on this node, and policies spread over the namespaces, each
// selecting an app, with a label peer, a namespace peer and a block.
func benchCluster(policies, pods int) *policy.Cluster {
	c := policy.NewCluster(policy.Options{Node: "here"})
	c.SetNode(policy.Node{Name: "here", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fc00::/7")}})
	for i := range pods {
		p := benchPod(i)
		if i%100 == 0 {
			c.SetNamespace(p.ID.Namespace, map[string]string{"team": fmt.Sprint(i / 100 % 10)})
		}
		c.SetPod(p)
		if i < benchLocalPods {
			c.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID, Interface: fmt.Sprintf("slup%d", i), Addresses: p.Addresses})
		}
	}
	for i := range policies {
		c.SetPolicy(benchPolicy(i))
	}
	return c
}

func benchPod(i int) policy.Pod {
	name := fmt.Sprintf("pod-%d", i)
	return policy.Pod{
		ID: selector.Pod{Namespace: fmt.Sprintf("ns-%d", i/100), Name: name, UID: name}, Node: "here",
		Labels: map[string]string{"app": fmt.Sprint(i % 20), "tier": fmt.Sprint(i % 3), "pod": name},
		Addresses: []netip.Addr{
			netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}),
			netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)}),
		},
	}
}

// benchPolicy selects one app of the first namespace, where the node's pods are.
func benchPolicy(i int) policy.Policy {
	np, err := cases.RenderPolicy(fmt.Sprintf("ns-0/policy-%d", i), fmt.Sprintf(`{podSelector: {matchLabels: {app: "%d"}}, policyTypes: [Ingress, Egress],
		ingress: [{from: [{podSelector: {matchLabels: {app: "%d"}}}, {namespaceSelector: {matchLabels: {team: "%d"}}}], ports: [{port: %d}, {port: 443}]}],
		egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.%d.0.0/16]}}]}]}`, i%20, (i+1)%20, i%10, 1000+i, i%200), cases.Addr)
	if err != nil {
		panic(err)
	}
	return policy.Parse(np)
}

// benchSizes are a small cluster, one with many policies, and a large one; with
// SLUICE_LONG=1 also what is between them.
func benchSizes() []sizeName {
	if os.Getenv("SLUICE_LONG") != "" {
		return []sizeName{{10, 1000}, {100, 1000}, {1000, 1000}, {10, 10000}, {100, 10000}, {1000, 10000}}
	}
	return []sizeName{{10, 1000}, {1000, 1000}, {1000, 10000}}
}

func (s sizeName) String() string { return fmt.Sprintf("policies=%d,pods=%d", s.policies, s.pods) }

type sizeName struct{ policies, pods int }

// BenchmarkCompile: from objects to the typed ruleset, from scratch.
func BenchmarkCompile(b *testing.B) {
	for _, size := range benchSizes() {
		b.Run(size.String(), func(b *testing.B) {
			for b.Loop() {
				c := benchCluster(size.policies, size.pods)
				c.Take()
				NewRenderer(RulesetConfig{}).Ruleset(c)
			}
		})
	}
}

// BenchmarkFirstApply: from the typed ruleset to a kernel that has nothing.
func BenchmarkFirstApply(b *testing.B) {
	for _, size := range benchSizes() {
		b.Run(size.String(), func(b *testing.B) {
			c := benchCluster(size.policies, size.pods)
			c.Take()
			node := testnet.NewNode(b)
			for b.Loop() {
				table := openTable(b, node)
				if err := table.Sync(context.Background(), NewRenderer(RulesetConfig{}).Ruleset(c)); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := table.Close(); err != nil {
					b.Fatal(err)
				}
				node.Nft("delete", "table", "inet", nft.TableName)
				b.StartTimer()
			}
		})
	}
}

func openTable(b *testing.B, node *testnet.Node) *table.Table {
	b.Helper()
	table, err := table.Open(table.Options{NetNS: node.NSFd()})
	if err != nil {
		b.Fatal(err)
	}
	return table
}

// benchChange measures changes of a cluster, from the event to the kernel:
// change, and not what undo does to be ready for the next, if it is given.
func benchChange(b *testing.B, policies, pods int, change, undo func(c *policy.Cluster, i int)) {
	b.Helper()
	c := benchCluster(policies, pods)
	c.Take()
	r := NewRenderer(RulesetConfig{})
	table := openTable(b, testnet.NewNode(b))
	if err := table.Sync(context.Background(), r.Ruleset(c)); err != nil {
		b.Fatal(err)
	}
	step := func(do func(c *policy.Cluster, i int), i int) {
		do(c, i)
		if err := table.Apply(context.Background(), r.Patch(c, c.Take())); err != nil {
			b.Fatal(err)
		}
	}
	for i := 0; b.Loop(); i++ {
		step(change, i)
		if undo != nil {
			b.StopTimer()
			step(undo, i)
			b.StartTimer()
		}
	}
	if err := table.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRemotePod: a pod of another node comes or goes; one element of
// some sets changes.
func BenchmarkRemotePod(b *testing.B) {
	for _, size := range benchSizes() {
		b.Run(size.String(), func(b *testing.B) {
			p := benchPod(size.pods - 1)
			benchChange(b, size.policies, size.pods, func(c *policy.Cluster, i int) {
				if i%2 == 0 {
					c.SetPod(p)
				} else {
					c.DeletePod(p.ID.Namespace, p.ID.Name)
				}
			}, nil)
		})
	}
}

// BenchmarkAddLocalPod: a pod of this node comes, as in an ADD.
func BenchmarkAddLocalPod(b *testing.B) { benchLocalPod(b, true) }

// BenchmarkDeleteLocalPod: a pod of this node goes. The kernel's commits take
// microseconds; packets under way are waited for before its chains go.
func BenchmarkDeleteLocalPod(b *testing.B) { benchLocalPod(b, false) }

func benchLocalPod(b *testing.B, add bool) {
	b.Helper()
	for _, size := range benchSizes() {
		b.Run(size.String(), func(b *testing.B) {
			p := benchPod(0)
			come := func(c *policy.Cluster, _ int) {
				c.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID, Interface: "slup0", Addresses: p.Addresses})
			}
			leave := func(c *policy.Cluster, _ int) { c.DeleteEndpoint(p.ID.Name) }
			if add {
				benchChange(b, size.policies, size.pods, come, leave)
			} else {
				benchChange(b, size.policies, size.pods, leave, come)
			}
		})
	}
}

// BenchmarkEditPolicy: a policy of pods on this node gets another port.
func BenchmarkEditPolicy(b *testing.B) {
	for _, size := range benchSizes() {
		b.Run(size.String(), func(b *testing.B) {
			versions := [2]policy.Policy{benchPolicy(0), benchPolicy(20)}
			versions[1].Key = versions[0].Key
			benchChange(b, size.policies, size.pods, func(c *policy.Cluster, i int) { c.SetPolicy(versions[i%2]) }, nil)
		})
	}
}

// BenchmarkFirstPacket: the time one packet of a new flow takes from a pod
// through the node to another pod, with policies of which only the last
// allows it. The reference has no policy. Later packets don't look at policies.
func BenchmarkFirstPacket(b *testing.B) {
	for _, policies := range []int{0, 1, 10, 32, 100} {
		b.Run(fmt.Sprintf("policies=%d", policies), func(b *testing.B) {
			node := testnet.NewNode(b)
			hosts, c := benchPair(node)
			for i := range policies {
				peer := "nobody"
				if i == policies-1 {
					peer = "0"
				}
				np, err := cases.RenderPolicy(fmt.Sprintf("ns-0/p-%03d", i), fmt.Sprintf(
					`{podSelector: {matchLabels: {app: "1"}}, ingress: [{from: [{podSelector: {matchLabels: {app: "%s"}}}], ports: [{port: 9000, protocol: UDP}]}]}`, peer), cases.Addr)
				if err != nil {
					b.Fatal(err)
				}
				c.SetPolicy(policy.Parse(np))
			}
			sink := hosts[1].Sink(testnet.UDP, 9000)
			benchFlood(b, node, c, hosts, 9000)
			if sink.Received() == 0 {
				b.Fatal("no packet arrived")
			}
		})
	}
}

// benchPair makes two pods of the first namespace.
func benchPair(node *testnet.Node) (hosts []*testnet.Host, c *policy.Cluster) {
	c = policy.NewCluster(policy.Options{Node: "here"})
	c.SetNamespace("ns-0", nil)
	for i := range 2 {
		p := benchPod(i)
		h := node.Pod(p.ID.Name, p.Addresses...)
		hosts = append(hosts, h)
		c.SetPod(p)
		c.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID, Interface: h.Interface(), Addresses: p.Addresses})
	}
	return hosts, c
}

// benchFlood puts the policies into force and measures a flood of the first
// pod's to the other.
func benchFlood(b *testing.B, node *testnet.Node, c *policy.Cluster, hosts []*testnet.Host, port uint16) {
	b.Helper()
	c.Take()
	table := openTable(b, node)
	if err := table.Sync(context.Background(), NewRenderer(RulesetConfig{}).Ruleset(c)); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	flood := hosts[0].Flood(netip.AddrPortFrom(hosts[1].Addr4(), port))
	poll := time.NewTicker(100 * time.Microsecond)
	for flood.Sent() < uint64(b.N) {
		<-poll.C
	}
	poll.Stop()
	elapsed := b.Elapsed()
	b.StopTimer()
	sent := flood.Stop()
	b.ReportMetric(float64(elapsed.Nanoseconds())/float64(sent), "ns/packet")
	if err := table.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDeniedPacket: the time that one packet takes which a pod sends and
// the policy of another denies: no rule of it matches. The reference has none.
func BenchmarkDeniedPacket(b *testing.B) {
	for _, blocks := range []int{0, 100, 5000} {
		b.Run(fmt.Sprintf("blocks=%d", blocks), func(b *testing.B) {
			rules := ""
			if blocks > 0 {
				rules = growing[0].policies(blocks)[0]
			}
			node := testnet.NewNode(b)
			hosts, c := benchPair(node)
			np, err := cases.RenderPolicy("ns-0/p", `{podSelector: {matchLabels: {app: "1"}}, `+rules+`}`, cases.Addr)
			if err != nil {
				b.Fatal(err)
			}
			c.SetPolicy(policy.Parse(np))
			benchFlood(b, node, c, hosts, 80)
		})
	}
}
