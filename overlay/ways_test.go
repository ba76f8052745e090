package overlay_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/overlay"
)

// Nodes that are routers, with their addresses on lo, are connected as soon as routes lead from one
// to the other, and by whichever links these lead.
func TestAddressesOnLo(t *testing.T) {
	t.Parallel()
	for family, world := range map[overlay.Family]struct {
		address, link, gateway string // of node %d
	}{
		overlay.IPv4: {"10.255.0.%d/32", "169.254.10.%d/24", "169.254.10.%d"},
		overlay.IPv6: {"fd00:255::%d/128", "fe80:10::%d/64", "fe80:10::%d"},
	} {
		t.Run(family.String(), func(t *testing.T) {
			t.Parallel()
			u := newUnderlay(t)
			u.Run("ip link add br1 up type bridge mcast_snooping 0 forward_delay 0")
			config := dual(nil)
			var machines []*machine
			var nodes []overlay.Node
			for i := 1; i <= 2; i++ {
				m := u.newMachineOn("br0", i, nil)
				address := netip.MustParsePrefix(fmt.Sprintf(world.address, i))
				m.Run(fmt.Sprintf("ip addr add %s dev lo\nip addr add %s dev eth0", address,
					fmt.Sprintf(world.link, i)))
				machines = append(machines, m)
				nodes = append(nodes, changed(node(i), func(n *overlay.Node) {
					n.Addresses = []netip.Addr{address.Addr()}
				}))
			}
			a, b := machines[0], machines[1]
			for _, m := range machines {
				m.serve()
				m.start(nodes, config)
			}
			a.await(patience, "reason", func() error {
				if s := a.rec.Status(); s.Ready ||
					!strings.Contains(s.Reason,
						"is on lo, and no route leads from there to another node") {
					return fmt.Errorf("ready %t: %s", s.Ready, s.Reason)
				}
				return nil
			})
			way := func(m *machine, verb string, prefix string) {
				m.Run(fmt.Sprintf("ip %s route %s %s via %s dev eth0",
					map[overlay.Family]string{overlay.IPv4: "-4", overlay.IPv6: "-6"}[family], verb,
					prefix, fmt.Sprintf(world.gateway, 3-m.i)))
			}
			other := func(m *machine) string { return nodes[2-m.i].Addresses[0].String() }
			way(a, "add", other(a))
			way(b, "add", other(b))
			a.awaitReady(1)
			b.awaitReady(1)
			a.mustReach(b, config)
			b.mustReach(a, config)
			if a.tunnelled() == "0" {
				t.Error("nothing went through the tunnel")
			}
			if s := a.rec.Status(); s.Device != "" ||
				s.MTU != map[overlay.Family]int{overlay.IPv4: 1450, overlay.IPv6: 1430}[family] {
				t.Errorf("bound to %q, MTU %d", s.Device, s.MTU)
			}

			way(a, "add",
				"default") // by which the node still has a way out when the one to its peer goes
			a.Run(fmt.Sprintf("ip route add unreachable %s metric 5", other(a)))
			way(a, "del", other(a))
			a.await(2*time.Second, "skipping of the peer", func() error {
				if s := a.rec.Status(); len(s.Peers) != 0 ||
					!strings.Contains(fmt.Sprint(s.Skipped),
						"no route leads to its address "+other(a)) {
					return fmt.Errorf("peers %v, skipped %v, reason %q", s.Peers, s.Skipped,
						s.Reason)
				}
				return nil
			})
			a.Run(fmt.Sprintf("ip route del unreachable %s metric 5",
				other(a))) // now by the default route
			a.awaitReady(1)
			a.mustReach(b, config)
		})
	}
}
