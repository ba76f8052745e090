package overlay_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/link"
	"github.com/sluice-net/sluice/overlay"
)

// Whatever the nodes claim, what is desired makes sense, and doesn't depend on their order.
func TestDesiredProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		nodes := []overlay.Node{node(1)}
		for i := range rapid.IntRange(0, 8).Draw(t, "peers") {
			nodes = append(nodes, randomPeer(t, i+2))
		}
		c := dual(func(c *overlay.Config) {
			c.DirectRouting = rapid.Bool().Draw(t, "direct")
			if rapid.Bool().Draw(t, "host-gw") {
				c.Backend = overlay.HostGW
			}
		})
		plan, err := overlay.Desired("node1", nodes, c, eth0(1))
		if err != nil {
			t.Fatal(err)
		}
		routes := link.Of[link.Route](plan.State)
		for i, r := range routes {
			for _, other := range routes[:i] {
				if r.To.Overlaps(other.To) {
					t.Fatalf("%v and %v overlap", r, other)
				}
			}
			if slices.ContainsFunc(node(1).PodCIDRs, r.To.Overlaps) {
				t.Fatalf("%v leads to the node's own pods", r)
			}
			if !net4.Overlaps(r.To) && !net6.Overlaps(r.To) {
				t.Fatalf("%v is outside the pod network", r)
			}
		}
		if again := overlay.Diff(plan.State, plan.State); len(again) != 0 {
			t.Fatalf("a state differs from itself: %v", again)
		}
		other, err := overlay.Desired("node1", rapid.Permutation(nodes).Draw(t, "order"), c,
			eth0(1))
		if err != nil || other.String() != plan.String() {
			t.Fatalf("another order of nodes gives (%v):\n%s\nnot:\n%s", err, other, plan)
		}
	})
}

func randomPeer(t *rapid.T, i int) overlay.Node {
	n := overlay.Node{Name: fmt.Sprintf("node%d", i),
		Created: time.Unix(rapid.Int64Range(0, 2).Draw(t, "age"), 0)}
	for range rapid.IntRange(0, 3).Draw(t, "cidrs") {
		bits := rapid.IntRange(14, 26).Draw(t, "bits")
		third := rapid.IntRange(0, 5).Draw(t, "third")
		n.PodCIDRs = append(n.PodCIDRs, rapid.SampledFrom([]netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(third), 0}), bits),
			netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd00:10:244:%x::", third)), bits+40),
		}).Draw(t, "cidr"))
	}
	n.Addresses = rapid.SliceOfN(rapid.SampledFrom(addrs("192.168.77.1", "192.168.77.2",
		"192.168.77.3", "10.244.3.1", "fd77::2", "fd88::9", "10.0.0.1")), 0, 3).Draw(t, "addresses")
	return n
}
