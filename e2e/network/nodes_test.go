package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/e2e/lab/capture"
	"github.com/sluice-net/sluice/test/probe"
)

// Nodes join, leave and change, and the others follow.
func TestNodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "nodes", lab.Options{Nodes: 3})
	w.run("node1", "default/a")
	w.run("node2", "default/b")
	for _, part := range []struct {
		name string
		test func(w *world)
	}{
		{"a node joins", nodeJoins},
		{"a node leaves while an agent is away", nodeLeavesUnseen},
		{"a node leaves", nodeLeaves},
		{"a node's addresses change", nodeChangesAddresses},
		{"a node's pod CIDRs change", nodeChangesPodCIDRs},
		{"a node reboots", nodeReboots},
		{"fifty nodes join at once", fiftyNodesJoin},
	} {
		w.part(part.name, part.test)
	}
}

func nodeJoins(w *world) {
	start := time.Now()
	_, err := w.AddNode(w.t.Context())
	must(w.t, err)
	w.t.Logf("the node, from nothing, was ready after %s",
		time.Since(start).Round(time.Millisecond))
	w.run("node4", "default/d")
	w.talk("default/a", "default/d")
}

// mentions says whether anything that a node has of the pod network is about one of these addresses
// or ranges.
func (w *world) mentions(node string, about ...string) bool {
	w.t.Helper()
	isAbout := func(word string) bool { return slices.Contains(about, word) }
	return slices.ContainsFunc(strings.Fields(w.state(node)), isAbout)
}

func nodeLeavesUnseen(w *world) {
	node1 := w.Node("node1")
	node1.KillAgent()
	must(w.t, w.RemoveNode(w.t.Context(), "node4"))
	gone := []string{"10.244.4.0/24", "fd00:10:244:4::/64", "10.244.4.0", "fd00:10:244:4::",
		"192.168.0.4"}
	for _, what := range gone {
		if !w.mentions("node1", what) {
			w.t.Errorf("%s isn't in the state of node1 although its agent couldn't remove it:\n%s",
				what, w.state("node1"))
		}
	}
	w.eventually(settleTime, "node2 to forget the node", func() bool {
		return !w.mentions("node2", gone...)
	})
	start := time.Now()
	must(w.t, node1.StartAgent())
	w.eventually(settleTime, "node1 to forget the node", func() bool {
		return !w.mentions("node1", gone...)
	})
	w.t.Logf("forgotten %s after the agent's start", time.Since(start).Round(time.Millisecond))
	ctx, cancel := context.WithTimeout(w.t.Context(), settleTime)
	defer cancel()
	must(w.t, node1.WaitReady(ctx))
	w.talk("default/a", "default/b")
}

func nodeLeaves(w *world) {
	gone := []string{"10.244.3.0/24", "fd00:10:244:3::/64", "10.244.3.0", "fd00:10:244:3::",
		"192.168.0.3"}
	if !w.mentions("node1", gone...) {
		w.t.Errorf("node1 doesn't know node3:\n%s", w.state("node1"))
	}
	must(w.t, w.RemoveNode(w.t.Context(), "node3"))
	for _, node := range []string{"node1", "node2"} {
		took := w.eventually(healTime, node+" to forget the node", func() bool {
			return !w.mentions(node, gone...)
		})
		w.t.Logf("%s forgot it %s after it was removed", node, took)
	}
	if n := w.metric("node1", "sluice_network_peers"); n != 1 {
		w.t.Errorf("node1 has %v peers, want 1", n)
	}
	w.talk("default/a", "default/b")
}

func nodeChangesAddresses(w *world) {
	old := w.NodeAddrs("node2")
	next := []netip.Addr{netip.MustParseAddr("192.168.0.77"),
		netip.MustParseAddr("fd00:192:168::77")}
	for _, addr := range next {
		must(w.t, w.Node("node2").SetAddress(w.t.Context(), addr))
	}
	// the one has it as its peer's, the other as its own
	for _, node := range []string{"node1", "node2"} {
		took := w.eventually(settleTime, node+" to have the new address only", func() bool {
			return w.mentions(node, next[0].String()) && !w.mentions(node, old[0].String())
		})
		w.t.Logf("%s followed after %s", node, took)
	}
	capture, err := w.Capture("node1", uplink, func(p capture.Packet) bool {
		return p.VXLAN != nil
	})
	must(w.t, err)
	w.talk("default/a", "default/b")
	packets, err := capture.Stop()
	must(w.t, err)
	if len(packets) == 0 {
		w.t.Error("nothing went through the tunnel")
	}
	w.lookEncapsulated(packets, true, w.Node("node1"), w.Node("node2"))
	for _, addr := range w.addrs(lab.Outside) {
		w.reaches("default/b", probe.TCP, at(addr, tcpPort), of(next, addr))
	}
}

func nodeChangesPodCIDRs(w *world) {
	gone := []string{"10.244.2.0/24", "fd00:10:244:2::/64"}
	node := w.Node("node2")
	must(w.t, w.Client().Delete(w.t.Context(), podObject("default/b")))
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*settleTime)
	defer cancel()
	must(w.t, w.WaitGone(ctx, "default/b"))
	must(w.t, node.SetPodCIDRs(ctx, netip.MustParsePrefix("10.244.99.0/24"),
		netip.MustParsePrefix("fd00:10:244:99::/64")))
	for _, name := range w.NodeNames() {
		took := w.eventually(settleTime, name+" to have routes to the new range only", func() bool {
			return !w.mentions(name, gone...) && w.mentions(name, "10.244.99.0/24") &&
				w.mentions(name, "fd00:10:244:99::/64")
		})
		w.t.Logf("%s followed after %s", name, took)
	}
	w.run("node2", "default/b")
	for _, addr := range w.addrs("default/b") {
		if !node.PodCIDRs()[0].Contains(addr) && !node.PodCIDRs()[1].Contains(addr) {
			w.t.Errorf("a new pod has %s, want an address of %v", addr, node.PodCIDRs())
		}
	}
	w.talk("default/a", "default/b")
}

const onlyFromA = `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: only-from-a}, spec: {podSelector: {matchLabels: {name: b}},
  ingress: [{from: [{podSelector: {matchLabels: {name: a}}}]}]}}`

// nodeReboots: pods come back with their policy, before which nothing gets through to them, and no
// address is lost.
func nodeReboots(w *world) {
	w.run("node1", "default/stranger")
	w.talk("default/a", "default/b")
	w.talk("default/stranger", "default/b") // the control
	must(w.t, w.Apply(w.t.Context(), onlyFromA))
	w.eventually(settleTime, "the policy to be in force", func() bool {
		return w.working("default/stranger", "default/b") == 0
	})
	inUse := w.addressesInUse("node2")
	if inUse != 2 {
		w.t.Errorf("node2 has %v addresses in use, want its pod's two", inUse)
	}

	tried := w.firstAddresses("node2")
	stop := w.keepTrying("default/stranger", tried)
	for range 2 {
		must(w.t, w.Node("node2").Reboot())
		ctx, cancel := context.WithTimeout(w.t.Context(), 2*settleTime)
		must(w.t, w.Node("node2").WaitReady(ctx))
		cancel()
		w.eventually(2*settleTime, "the pod to be back", func() bool {
			_, err := w.Pod("default/b")
			return err == nil && w.working("default/a", "default/b") == 2
		})
		w.waitReady("default/b")
		for _, addr := range w.addrs("default/b") {
			if !slices.Contains(tried, addr) {
				w.t.Errorf(
					"the pod came back with %s, which nobody tried: one of %v was to be expected",
					addr, tried)
			}
		}
		w.eventually(settleTime, "the addresses in use to be those of the pods", func() bool {
			return w.addressesInUse("node2") == inUse
		})
	}
	tries, leaks := stop()
	w.t.Logf("%d connections that the policy denies were tried meanwhile", tries)
	if tries < 10 || leaks > 0 {
		w.t.Errorf("%d of %d of them were made", leaks, tries)
	}
	if n := w.working("default/stranger", "default/b"); n != 0 {
		w.t.Errorf("connections that the policy denies work over %d families after a reboot", n)
	}
	must(w.t, w.Delete(w.t.Context(), onlyFromA))
	w.talk("default/stranger", "default/b")
}

// firstAddresses are those that a node's first pods get.
func (w *world) firstAddresses(node string) (addrs []netip.Addr) {
	w.t.Helper()
	const most = 4 // more than any node here has had pods
	for _, cidr := range w.Node(node).PodCIDRs() {
		for n, addr := 0, cidr.Addr().Next(); n < most; n, addr = n+1, addr.Next() {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// keepTrying connects from a pod to addresses, again and again until stop.
func (w *world) keepTrying(from string, addrs []netip.Addr) (stop func() (tries, connected int)) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	var trying sync.WaitGroup
	var all, some atomic.Int64
	for _, addr := range addrs {
		trying.Go(func() {
			for ctx.Err() == nil {
				all.Add(1)
				if w.Connect(ctx, from, probe.TCP, at(addr, tcpPort),
					probe.WithTimeout(100*time.Millisecond)).OK {
					some.Add(1)
				}
			}
		})
	}
	return func() (int, int) {
		cancel()
		trying.Wait()
		return int(all.Load()), int(some.Load())
	}
}

// addressesInUse counts them as the node's agent does, over both families.
func (w *world) addressesInUse(node string) (sum float64) {
	w.t.Helper()
	for _, cidr := range w.Node(node).PodCIDRs() {
		sum += w.metric(node, fmt.Sprintf("sluice_addresses_in_use{cidr=%q}", cidr))
	}
	return sum
}

func fiftyNodesJoin(w *world) {
	const many = 50
	routes := func() int {
		return strings.Count(w.sh("node1", "ip route show proto 84; ip -6 route show proto 84"),
			" via ")
	}
	before := routes()
	start := time.Now()
	names, err := w.CreateNodeObjects(w.t.Context(), many)
	must(w.t, err)
	created := time.Since(start)
	w.eventually(settleTime, "routes to them all", func() bool { return routes() == before+2*many })
	w.t.Logf("%d nodes were created within %s, and routes of both families to all of them were "+
		"there after %s", many, created, time.Since(start))
	w.talk("default/a", "default/b")
	start = time.Now()
	must(w.t, w.DeleteNodeObjects(w.t.Context(), names...))
	w.eventually(settleTime, "these routes to go", func() bool { return routes() == before })
	w.t.Logf("they were gone %s after the first was deleted", time.Since(start))
}
