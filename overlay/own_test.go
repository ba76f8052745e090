package overlay_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sluice-net/sluice/overlay"
)

// The node is at the addresses of its links, whatever they are called, and at those of lo that its
// Node names. Others that are local are somebody else's, and so is what is on lo as well. It is
// told as soon as it changes, also of a node that can't take part.
func TestOwnAddresses(t *testing.T) {
	t.Parallel()
	m := lone(t)
	own := changed(node(1), func(n *overlay.Node) {
		n.Addresses = append(n.Addresses, addrs("203.0.113.1", "198.51.100.1")...)
	})
	m.Run(`ip addr add 203.0.113.1/32 dev lo
		ip addr add 203.0.113.2/32 dev lo
		ip addr add 192.168.77.201/24 dev eth0
		ip addr add 192.168.77.200/32 dev eth0
		ip addr add 192.168.77.200/32 dev lo
		ip link add br0 up type bridge
		ip addr add 172.17.0.1/16 dev br0`)
	m.start([]overlay.Node{own, node(2)}, dual(nil))
	are := func(want ...string) {
		t.Helper()
		m.await(2*time.Second, "addresses", func() error {
			if got := m.rec.Status().Own; !slices.Equal(got, addrs(want...)) {
				return fmt.Errorf("got %v", got)
			}
			return nil
		})
	}
	are("172.17.0.1", "192.168.77.1", "192.168.77.201", "203.0.113.1", "fd77::1")
	m.Run("ip addr add 192.168.77.202/24 dev eth0\nip addr del 203.0.113.1/32 dev lo")
	are("172.17.0.1", "192.168.77.1", "192.168.77.201", "192.168.77.202", "fd77::1")
	m.rec.Set("node1", []overlay.Node{changed(own, func(n *overlay.Node) { n.PodCIDRs = nil }),
		node(2)}, dual(nil))
	m.Run("ip addr del 192.168.77.202/24 dev eth0")
	are("172.17.0.1", "192.168.77.1", "192.168.77.201", "fd77::1")
	s := m.rec.Status()
	if s.Ready || !slices.Contains(s.Own, netip.MustParseAddr("192.168.77.1")) {
		t.Errorf("ready %t, own %v", s.Ready, s.Own)
	}
}

// TestAddressTwice: where two links have the node's address, the first one counts, at each pass.
func TestAddressTwice(t *testing.T) {
	t.Parallel()
	m := lone(t)
	m.Run(`ip link add br1 up type bridge
		ip addr add 192.168.77.1/24 dev br1
		ip addr add 192.168.77.1/32 dev lo`)
	m.start([]overlay.Node{node(1), node(2)}, dual(nil))
	m.awaitReady(1)
	before := m.rec.Status()
	const passes = 20
	for i := range passes {
		addr := fmt.Sprintf("203.0.113.%d", i+1)
		m.Run("ip addr add " + addr + "/32 dev eth0")
		m.await(patience, "pass", func() error {
			if own := m.rec.Status().Own; !slices.Contains(own, netip.MustParseAddr(addr)) {
				return fmt.Errorf("own addresses %v", own)
			}
			return nil
		})
	}
	if after := m.rec.Status(); after.Changes != before.Changes || after.Device != before.Device {
		t.Errorf("%d changes and %s before, then %d and %s", before.Changes, before.Device,
			after.Changes, after.Device)
	}
}
