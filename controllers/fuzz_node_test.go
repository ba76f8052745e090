package controllers

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/link"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/ruleworld"
)

// clusterNode is number i of a cluster, as an API server has it.
func clusterNode(i int) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node%d", i),
			CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000, 0))},
		Spec: corev1.NodeSpec{PodCIDRs: []string{fmt.Sprintf("10.244.%d.0/24", i),
			fmt.Sprintf("fd00:10:244:%x::/64", i)}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.168.77.%d", i)},
			{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("fd77::%x", i)},
		}},
	}
}

// planOf is what node 1 makes of a cluster.
func planOf(t testing.TB, nodes []*corev1.Node, c overlay.Config) overlay.Plan {
	t.Helper()
	var all []overlay.Node
	for _, n := range nodes {
		out, _ := OverlayNode(n) // what can't be read is left out
		all = append(all, out)
	}
	links := []overlay.Link{{Name: "eth0", MTU: 1500,
		Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.77.1/24"),
			netip.MustParsePrefix("fd77::1/64")}}}
	plan, err := overlay.Desired("node1", all, c, links)
	if err != nil {
		t.Fatalf("node1 can't take part any more: %v", err)
	}
	return plan
}

// FuzzNode adds any Node object, newer than the others, to a cluster. The others are reached as
// before, no address of theirs or of this node leads to the new one, and impossible claims of it
// are reported.
func FuzzNode(f *testing.F) {
	for _, text := range []string{
		`{"spec":{"podCIDRs":["10.244.9.0/24"]},"status":{"addresses":[{"type":"InternalIP","address":"192.168.77.9"}]}}`,
		`{"spec":{"podCIDR":"10.244.2.0/25","podCIDRs":["10.244.2.7/32","0.0.0.0/0","10.244.1.0/24","::/0"]},"status":{"addresses":[{"type":"InternalIP","address":"192.168.77.2"}]}}`,
		`{"spec":{"podCIDRs":["10.244.9.0/24","fd00:10:244:9::/64"]},"status":{"addresses":[{"type":"InternalIP","address":"fd77::1%eth0"},{"type":"InternalIP","address":"fd77::2%1"}]}}`,
		`{"spec":{"podCIDRs":["10.244.9.0/24"]},"metadata":{"annotations":{"sluice.network/underlay-ip":"192.168.77.1"}}}`,
		`{"spec":{"podCIDRs":["::ffff:10.244.9.0/120","fd00:10:244:9::/64"]},"metadata":{"annotations":{"sluice.network/underlay-ip":"fd77::1%eth0"}}}`,
		`{"spec":{"podCIDRs":["010.244.009.1/24"]},"status":{"addresses":[{"type":"InternalIP","address":"224.0.0.1"},{"type":"InternalIP","address":""},{"type":"ExternalIP","address":"192.0.2.1"}]}}`,
	} {
		f.Add([]byte(text), uint8(0))
		f.Add([]byte(text), uint8(1))
		f.Add([]byte(text), uint8(2))
	}
	f.Fuzz(func(t *testing.T, object []byte, mode uint8) {
		hostile := &corev1.Node{}
		if json.Unmarshal(object, hostile) != nil {
			return
		}
		hostile.Name, hostile.CreationTimestamp = "hostile",
			metav1.NewTime(time.Unix(1_800_000_000, 0))
		config := overlay.Config{
			Network:     netip.MustParsePrefix("10.244.0.0/16"),
			IPv6Network: netip.MustParsePrefix("fd00:10:244::/56"),
			Backend:     overlay.VXLAN, VNI: 1, Port: 8472, DirectRouting: mode%3 == 1,
		}
		if mode%3 == 2 {
			config.Backend = overlay.HostGW
		}
		nodes := []*corev1.Node{clusterNode(1), clusterNode(2), clusterNode(3)}
		checkNode(t, planOf(t, nodes, config), planOf(t, append(nodes, hostile), config))

		for _, a := range append(internalIPs(hostile), policy.NodeFrom(hostile).Addresses...) {
			if a.Zone() != "" || a.Is4In6() {
				t.Errorf("a node's address %s", a)
			}
		}
		var out ruleset.Network
		n := &PodNetwork{options: NetworkOptions{Masquerade: true, ToNodes: MasqueradeNever}}
		one, _ := OverlayNode(hostile)
		plan := planOf(t, append(nodes, hostile), config)
		out = n.rules(NetworkState{Config: config,
			Status: overlay.Status{Tunnel: "sluice.1", Local: plan.Local, Peers: plan.Peers}},
			[]overlay.Node{one})
		w := ruleworld.New(t)
		w.Render.SetNetwork(out, nil)
		w.Change(func(c *cluster.Cluster) { c.SetNode(policy.NodeFrom(hostile)) })
		if err := ruleworld.Writable(w.Have); err != nil {
			t.Error(err)
		}
		w.Change(func(c *cluster.Cluster) { c.DeleteNode("hostile") })
	})
}

func overlayPodCIDRs(n *corev1.Node) []netip.Prefix {
	out, _ := OverlayNode(n)
	return out.PodCIDRs
}

// checkNode compares what there was with what there is beside a hostile node.
func checkNode(t testing.TB, before, after overlay.Plan) {
	t.Helper()
	for _, p := range before.Peers {
		if !slices.ContainsFunc(after.Peers,
			func(q overlay.Peer) bool { return fmt.Sprint(p) == fmt.Sprint(q) }) {
			t.Errorf("peer %+v is reached otherwise: %+v", p, after.Peers)
		}
	}
	was, is := map[string]bool{}, map[netip.Prefix]int{}
	// no other way may lead to the node's own pods
	for _, own := range overlayPodCIDRs(clusterNode(1)) {
		is[own]++
	}
	for _, r := range link.Of[link.Route](before.State) {
		was[fmt.Sprint(r)] = true
	}
	for _, r := range link.Of[link.Route](after.State) {
		delete(was, fmt.Sprint(r))
		is[r.To]++
		for other := range is {
			if other != r.To && other.Overlaps(r.To) || is[r.To] > 1 {
				t.Errorf("%s is routed as well as %s", r.To, other)
			}
		}
	}
	if len(was) > 0 {
		t.Errorf("lost %s", strings.Join(slices.Collect(maps.Keys(was)), ", "))
	}
	for _, p := range after.Peers {
		if p.Name == "hostile" &&
			(p.Endpoint.Zone() != "" || p.Endpoint == netip.MustParseAddr("192.168.77.1") ||
				p.Endpoint == netip.MustParseAddr("fd77::1")) {
			t.Errorf("it is reached at %s", p.Endpoint)
		}
	}
}
