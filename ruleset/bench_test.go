package ruleset_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/benchcluster"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// BenchmarkCompile: from objects to the typed ruleset, from scratch.
func BenchmarkCompile(b *testing.B) {
	for _, size := range benchcluster.Sizes() {
		b.Run(size.String(), func(b *testing.B) {
			for b.Loop() {
				c := benchcluster.New(size.Policies, size.Pods)
				c.Take()
				ruleset.NewRenderer(ruleset.Config{}).Ruleset(c)
			}
		})
	}
}

// BenchmarkFirstApply: from the typed ruleset to a kernel that has nothing.
func BenchmarkFirstApply(b *testing.B) {
	for _, size := range benchcluster.Sizes() {
		b.Run(size.String(), func(b *testing.B) {
			c := benchcluster.New(size.Policies, size.Pods)
			c.Take()
			node := testnet.NewNode(b)
			for b.Loop() {
				applyToNothing(b, node, c)
			}
		})
	}
}

// applyToNothing writes a cluster's ruleset to a node that has none, and takes it away again, which
// isn't measured.
func applyToNothing(b *testing.B, node *testnet.Node, c *cluster.Cluster) {
	b.Helper()
	table := packetworld.OpenTable(b, node)
	err := table.Sync(context.Background(), ruleset.NewRenderer(ruleset.Config{}).Ruleset(c))
	if err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	if err := table.Close(); err != nil {
		b.Fatal(err)
	}
	node.Nft("delete", "table", "inet", nft.TableName)
	b.StartTimer()
}

// benchChange measures changes of a cluster, from the event to the kernel: change, and not what
// undo does to be ready for the next, if it is given.
func benchChange(b *testing.B, c *cluster.Cluster, change, undo func(c *cluster.Cluster, i int)) {
	b.Helper()
	c.Take()
	r := ruleset.NewRenderer(ruleset.Config{})
	table := packetworld.OpenTable(b, testnet.NewNode(b))
	if err := table.Sync(context.Background(), r.Ruleset(c)); err != nil {
		b.Fatal(err)
	}
	step := func(do func(c *cluster.Cluster, i int), i int) {
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

// BenchmarkRemotePod: a pod of another node comes or goes; one element of some sets changes.
func BenchmarkRemotePod(b *testing.B) {
	for _, size := range benchcluster.Sizes() {
		b.Run(size.String(), func(b *testing.B) {
			p := benchcluster.Pod(size.Pods - 1)
			world := benchcluster.New(size.Policies, size.Pods)
			benchChange(b, world, func(c *cluster.Cluster, i int) {
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

// BenchmarkDeleteLocalPod: a pod of this node goes. The kernel's commits take microseconds; packets
// under way are waited for before its chains go.
func BenchmarkDeleteLocalPod(b *testing.B) { benchLocalPod(b, false) }

func benchLocalPod(b *testing.B, add bool) {
	b.Helper()
	for _, size := range benchcluster.Sizes() {
		b.Run(size.String(), func(b *testing.B) {
			c := benchcluster.New(size.Policies, size.Pods)
			if add {
				benchChange(b, c, comes, leaves)
			} else {
				benchChange(b, c, leaves, comes)
			}
		})
	}
}

// comes and leaves are of the first pod, which is this node's.
func comes(c *cluster.Cluster, _ int) {
	p := benchcluster.Pod(0)
	c.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID, Interface: "slup0",
		Addresses: p.Addresses})
}

func leaves(c *cluster.Cluster, _ int) { c.DeleteEndpoint(benchcluster.Pod(0).ID.Name) }

// BenchmarkEditPolicy: a policy of pods on this node gets another port.
func BenchmarkEditPolicy(b *testing.B) {
	for _, size := range benchcluster.Sizes() {
		b.Run(size.String(), func(b *testing.B) {
			versions := [2]policy.Policy{benchcluster.Policy(0), benchcluster.Policy(20)}
			versions[1].Key = versions[0].Key
			world := benchcluster.New(size.Policies, size.Pods)
			benchChange(b, world, func(c *cluster.Cluster, i int) {
				c.SetPolicy(versions[i%2])
			}, nil)
		})
	}
}

// BenchmarkFirstPacket: the time one packet of a new flow takes from a pod through the node to
// another pod, with policies of which only the last allows it. The reference has no policy. Later
// packets don't look at policies. The policies differ in their peers alone, or each has a port of
// its own as well, or a podSelector.
func BenchmarkFirstPacket(b *testing.B) {
	b.Run("policies=0", func(b *testing.B) { benchFirstPacket(b, nil) })
	ofPeers := func(int) (own, port int) { return 0, 9000 }
	for _, policies := range []int{1, 10, 32, 100} {
		b.Run(fmt.Sprintf("policies=%d", policies), func(b *testing.B) {
			benchFirstPacket(b, benchPolicies(policies, ofPeers))
		})
	}
	const many = 100
	ofPorts := func(i int) (own, port int) { return 0, 9000 - many + 1 + i }
	ofSelectors := func(i int) (own, port int) { return i, 9000 }
	b.Run(fmt.Sprintf("ports=%d", many), func(b *testing.B) {
		benchFirstPacket(b, benchPolicies(many, ofPorts))
	})
	b.Run(fmt.Sprintf("podSelectors=%d", many), func(b *testing.B) {
		benchFirstPacket(b, benchPolicies(many, ofSelectors))
	})
}

// benchPolicies are policies of which the last allows UDP port 9000.
func benchPolicies(n int, of func(i int) (own, port int)) (specs []string) {
	for i := range n {
		peer := fmt.Sprintf("nobody-%d", i)
		if i == n-1 {
			peer = "0"
		}
		own, port := of(i)
		specs = append(specs, fmt.Sprintf(
			`{podSelector: {matchExpressions: [{key: app, operator: In, values: ["1", "own-%d"]}]},
			ingress: [{from: [{podSelector: {matchLabels: {app: "%s"}}}],
			ports: [{port: %d, protocol: UDP}]}]}`, own, peer, port))
	}
	return specs
}

func benchPolicy(b *testing.B, i int, spec string) policy.Policy {
	b.Helper()
	np, err := cases.RenderPolicy(fmt.Sprintf("ns-0/p-%03d", i), spec, cases.Addr)
	if err != nil {
		b.Fatal(err)
	}
	return policy.Parse(np)
}

func benchFirstPacket(b *testing.B, policies []string) {
	b.Helper()
	node := testnet.NewNode(b)
	hosts, c := benchPair(node)
	for i, spec := range policies {
		c.SetPolicy(benchPolicy(b, i, spec))
	}
	sink := hosts[1].Sink(testnet.UDP, 9000)
	benchFlood(b, node, c, hosts, 9000)
	if sink.Received() == 0 {
		b.Fatal("no packet arrived")
	}
}

// benchPair makes two pods of the first namespace.
func benchPair(node *testnet.Node) (hosts []*testnet.Host, c *cluster.Cluster) {
	c = cluster.New(cluster.Options{Node: "here"})
	c.SetNamespace("ns-0", nil)
	for i := range 2 {
		p := benchcluster.Pod(i)
		h := node.Pod(p.ID.Name, p.Addresses...)
		hosts = append(hosts, h)
		c.SetPod(p)
		c.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID, Interface: h.Interface(),
			Addresses: p.Addresses})
	}
	return hosts, c
}

// benchFlood puts the policies into force and measures a flood of the first pod's to the other.
func benchFlood(b *testing.B, node *testnet.Node, c *cluster.Cluster, hosts []*testnet.Host,
	port uint16) {
	b.Helper()
	c.Take()
	table := packetworld.OpenTable(b, node)
	if err := table.Sync(context.Background(),
		ruleset.NewRenderer(ruleset.Config{}).Ruleset(c)); err != nil {
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

// BenchmarkDeniedPacket: the time that one packet takes which a pod sends and the policy of another
// denies: no rule of it matches. The reference has none.
func BenchmarkDeniedPacket(b *testing.B) {
	for _, blocks := range []int{0, 100, 5000} {
		b.Run(fmt.Sprintf("blocks=%d", blocks), func(b *testing.B) {
			rules := ""
			if blocks > 0 {
				rules = growing[0].policies(blocks)[0]
			}
			node := testnet.NewNode(b)
			hosts, c := benchPair(node)
			np, err := cases.RenderPolicy("ns-0/p",
				`{podSelector: {matchLabels: {app: "1"}}, `+rules+`}`, cases.Addr)
			if err != nil {
				b.Fatal(err)
			}
			c.SetPolicy(policy.Parse(np))
			benchFlood(b, node, c, hosts, 80)
		})
	}
	const many = 500
	b.Run(fmt.Sprintf("policies=%d", many), func(b *testing.B) {
		node := testnet.NewNode(b)
		hosts, c := benchPair(node)
		ofPeers := func(int) (own, port int) { return 0, 9000 }
		for i, spec := range benchPolicies(many+1, ofPeers)[:many] {
			c.SetPolicy(benchPolicy(b, i, spec))
		}
		benchFlood(b, node, c, hosts, 9000)
	})
}
