package overlay_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-net/sluice/overlay"
)

// manyNodes is node1 and others, as many as asked for altogether, in a network that has room for
// them.
func manyNodes(n int) ([]overlay.Node, overlay.Config) {
	c := dual(func(c *overlay.Config) {
		c.Network, c.IPv6Network = netip.MustParsePrefix("10.0.0.0/8"),
			netip.MustParsePrefix("fd00::/32")
	})
	var nodes []overlay.Node
	for i := 1; i <= n; i++ {
		nodes = append(nodes, overlay.Node{
			Name: fmt.Sprintf("node%d", i),
			PodCIDRs: prefixes(fmt.Sprintf("10.%d.%d.0/24", 64+i>>8, i&255),
				fmt.Sprintf("fd00:0:%x::/64", i)),
			Addresses: addrs(fmt.Sprintf("192.168.%d.%d", 77+i>>8, i&255)),
		})
	}
	return nodes, c
}

func BenchmarkDesiredAndDiff(b *testing.B) {
	for _, n := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			nodes, c := manyNodes(n)
			for b.Loop() {
				plan, err := overlay.Desired("node1", nodes, c, eth0(1))
				if err != nil {
					b.Fatal(err)
				}
				if ops := overlay.Diff(plan.State, plan.State); len(ops) != 0 {
					b.Fatal(ops)
				}
			}
		})
	}
}

// A thousand nodes are in the kernel soon after they are known, and one that joins them sooner.
func TestThousandNodes(t *testing.T) {
	t.Parallel()
	m := lone(t)
	nodes, c := manyNodes(1001)
	m.start(nodes[:1], c)
	m.awaitReady(0)
	start := time.Now()
	m.rec.Set("node1", nodes[:1000], c)
	m.awaitReady(999)
	t.Logf("999 nodes joined 1 within %s", time.Since(start).Round(time.Millisecond))
	start = time.Now()
	m.rec.Set("node1", nodes, c)
	m.awaitReady(1000)
	t.Logf("one more within %s", time.Since(start).Round(time.Millisecond))
}
