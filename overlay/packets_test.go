package overlay_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/overlay"
)

// Pods of three nodes reach each other, and don't without the overlay.
func TestPodsReachEachOther(t *testing.T) {
	t.Parallel()
	over := func(f overlay.Family) overlay.Config {
		return dual(func(c *overlay.Config) { c.Underlay = f })
	}
	tests := map[string]struct {
		config  overlay.Config
		tunnels bool
		mtu     int
	}{
		"vxlan over IPv4":  {over(overlay.IPv4), true, 1450},
		"vxlan over IPv6":  {over(overlay.IPv6), true, 1430},
		"vxlan with VNI 0": {dual(func(c *overlay.Config) { c.VNI = 0 }), true, 1450},
		"IPv4 only, vxlan over IPv6": {dual(func(c *overlay.Config) {
			c.Underlay, c.IPv6Network = overlay.IPv6, netip.Prefix{}
		}), true, 1430},
		"IPv6 only, vxlan over IPv4": {
			dual(func(c *overlay.Config) { c.Network = netip.Prefix{} }), true, 1450},
		"host-gw": {dual(func(c *overlay.Config) { c.Backend = overlay.HostGW }),
			false, 1500},
		"DirectRouting": {dual(func(c *overlay.Config) { c.DirectRouting = true }), false, 1450},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUnderlay(t)
			machines := []*machine{u.newMachine(1), u.newMachine(2), u.newMachine(3)}
			for _, m := range machines {
				m.serve()
			}
			if err := machines[0].reach(node(1).PodCIDRs[0], node(2).PodCIDRs[0], 1); err == nil {
				t.Fatal("pods reach each other without an overlay")
			}
			nodes := []overlay.Node{node(1), node(2), node(3)}
			for _, m := range machines {
				m.start(nodes, test.config)
			}
			for _, m := range machines {
				m.awaitReady(2)
				if mtu := m.rec.Status().MTU; mtu != test.mtu {
					t.Errorf("got MTU %d, want %d", mtu, test.mtu)
				}
			}
			for _, m := range machines {
				for _, peer := range machines {
					if m != peer {
						m.mustReach(peer, test.config)
					}
				}
				if test.config.Backend == overlay.VXLAN && test.tunnels == (m.tunnelled() == "0") {
					t.Errorf("%s packets left through the tunnel", m.tunnelled())
				}
			}
		})
	}
}

// Between two subnets, only what crosses the router is tunnelled.
func TestDirectRoutingAcrossSubnets(t *testing.T) {
	t.Parallel()
	u := newUnderlay(t)
	u.Run(`sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		ip link add br1 up type bridge mcast_snooping 0 forward_delay 0
		ip addr add 192.168.77.254/24 dev br0
		ip addr add 192.168.88.254/24 dev br1
		ip addr add fd77::fe/64 dev br0
		ip addr add fd88::fe/64 dev br1`)
	near, same := u.newMachine(1), u.newMachine(2)
	far := u.newMachineOn("br1", 3, prefixes("192.168.88.3/24", "fd88::3/64"))
	for _, m := range []*machine{near, same} {
		m.Run("ip route add default via 192.168.77.254\nip -6 route add default via fd77::fe")
	}
	far.Run("ip route add default via 192.168.88.254\nip -6 route add default via fd88::fe")
	config := dual(func(c *overlay.Config) { c.DirectRouting = true })
	nodes := []overlay.Node{node(1), node(2),
		changed(node(3), func(n *overlay.Node) { n.Addresses = addrs("192.168.88.3", "fd88::3") })}
	for _, m := range []*machine{near, same, far} {
		m.serve()
		m.start(nodes, config)
	}
	for _, m := range []*machine{near, same, far} {
		m.awaitReady(2)
	}
	near.mustReach(same, config)
	if n := near.tunnelled(); n != "0" {
		t.Errorf("%s packets to a node on the same subnet were tunnelled", n)
	}
	near.mustReach(far, config)
	if near.tunnelled() == "0" {
		t.Error("packets to a node on another subnet weren't tunnelled")
	}
}

// The headers on the underlay are as they should be, without checksums.
func TestHeaders(t *testing.T) {
	t.Parallel()
	for family, filter := range map[overlay.Family]string{
		overlay.IPv4: "udp dst port 8472 and udp[6:2] = 0 and src 192.168.77.1 and dst 192.168.77.2",
		overlay.IPv6: "ip6 proto 17 and ip6[42:2] = 8472 and ip6[46:2] = 0 and src fd77::1 and dst fd77::2",
	} {
		t.Run(family.String(), func(t *testing.T) {
			t.Parallel()
			u := newUnderlay(t)
			a, b := u.newMachine(1), u.newMachine(2)
			b.serve()
			config := dual(func(c *overlay.Config) { c.Underlay = family })
			nodes := []overlay.Node{node(1), node(2)}
			a.start(nodes, config)
			b.start(nodes, config)
			a.awaitReady(1)
			b.awaitReady(1)
			capture := make(chan string, 1)
			go func() {
				defer close(capture)
				capture <- b.Run("timeout 8 tcpdump -n -c 3 -i eth0 " + filter)
			}()
			a.await(patience, "captured packets", func() error {
				a.mustReach(b, config)
				select {
				case out := <-capture:
					if !strings.Contains(out, "3 packets captured") {
						t.Error(out)
					}
					return nil
				default:
					return fmt.Errorf("none yet")
				}
			})
		})
	}
}

// What somebody does by hand is undone, and packets get through again.
func TestHeals(t *testing.T) {
	t.Parallel()
	mac2 := overlay.TunnelMAC("node2").String()
	for name, edit := range map[string]string{
		"nothing":            "true",
		"device deleted":     "ip link del sluice.1",
		"device down":        "ip link set sluice.1 down",
		"device down and up": "ip link set sluice.1 down\nip link set sluice.1 up",
		"device renamed, while the agent is down": "ip link set sluice.1 down\nip link set sluice.1 name foo\nip link del foo",
		"another type, while the agent is down":   "ip link del sluice.1\nip link add sluice.1 type bridge",
		"another VNI, while the agent is down": "ip link del sluice.1\nip link add " +
			"sluice.1 type vxlan id 9 dev eth0 dstport 8472 local 192.168.77.1",
		"another port, while the agent is down": "ip link del sluice.1\nip link add " +
			"sluice.1 type vxlan id 1 dev eth0 dstport 4789 local 192.168.77.1",
		"another local address, while the agent is down": "ip link del sluice.1\nip link add " +
			"sluice.1 type vxlan id 1 dev eth0 dstport 8472 local 192.168.77.99",
		"checksums on, while the agent is down": "ip link del sluice.1\nip link add " +
			"sluice.1 type vxlan id 1 dev eth0 dstport 8472 local 192.168.77.1 udpcsum nolearning",
		"no device below, while the agent is down": "ip link del sluice.1\nip link add " +
			"sluice.1 type vxlan id 1 dstport 8472 local 192.168.77.1 noudpcsum udp6zerocsumrx " +
			"nolearning",
		"MAC changed":                       "ip link set sluice.1 address 02:00:00:00:00:09",
		"MTU changed":                       "ip link set sluice.1 mtu 1300",
		"MTU below IPv6's":                  "ip link set sluice.1 mtu 1000",
		"learning on":                       "ip link set sluice.1 type vxlan learning",
		"enslaved, while the agent is down": "ip link add bad type bridge\nip link set sluice.1 master bad",
		"address removed":                   "ip addr del 10.244.1.0/32 dev sluice.1",
		"IPv6 address removed":              "ip addr del fd00:10:244:1::/128 dev sluice.1",
		"addresses flushed":                 "ip addr flush dev sluice.1",
		"address added":                     "ip addr add 10.9.9.9/32 dev sluice.1",
		"IPv6 off":                          "sysctl -w net.ipv6.conf.sluice/1.disable_ipv6=1",
		"routes flushed":                    "ip route flush proto 84",
		"IPv6 routes flushed":               "ip -6 route flush proto 84",
		"all routes of the device":          "ip route flush dev sluice.1\nip -6 route flush dev sluice.1",
		"route replaced":                    "ip route replace 10.244.2.0/24 via 192.168.77.77 dev eth0",
		"route changed":                     "ip route change 10.244.2.0/24 via 192.168.77.77 dev eth0 proto 84",
		"IPv6 route replaced":               "ip -6 route replace fd00:10:244:2::/64 via fd77::77 dev eth0",
		"stray routes of ours": "ip route add 10.9.0.0/24 via 192.168.77.77 proto " +
			"84\nip -6 route add fd09::/64 via fd77::77 proto 84\nip route add 10.244.2.0/24 via " +
			"192.168.77.77 metric 5 tos 4 proto 84",
		"neighbour deleted":      "ip neigh del 10.244.2.0 dev sluice.1",
		"IPv6 neighbour deleted": "ip -6 neigh del fd00:10:244:2:: dev sluice.1",
		"neighbour changed":      "ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:09 dev sluice.1 nud permanent",
		"neighbour that can expire": "ip neigh replace 10.244.2.0 lladdr " + mac2 +
			" dev sluice.1 nud stale",
		"neighbours flushed": "ip neigh flush dev sluice.1 nud permanent\nip -6 neigh flush dev " +
			"sluice.1 nud permanent",
		"neighbour added":   "ip neigh add 10.244.77.0 lladdr 02:00:00:00:00:09 dev sluice.1 nud permanent",
		"FDB entry deleted": "bridge fdb del " + mac2 + " dev sluice.1",
		"FDB entry changed": "bridge fdb replace " + mac2 +
			" dev sluice.1 dst 192.168.77.77 self permanent",
		"FDB entry by another port": "bridge fdb replace " + mac2 +
			" dev sluice.1 dst 192.168.77.2 port 9999 self permanent",
		"FDB entries added": "bridge fdb add 02:00:00:00:00:09 dev sluice.1 dst " +
			"192.168.77.77\nbridge fdb append 00:00:00:00:00:00 dev sluice.1 dst " +
			"192.168.77.77\nbridge fdb append 00:00:00:00:00:00 dev sluice.1 dst 192.168.77.78",
		"underlay down and up":   "ip link set eth0 down\nip link set eth0 up\nip addr replace fd77::1/64 dev eth0",
		"underlay address moved": "ip addr del 192.168.77.1/24 dev eth0\nip addr add 192.168.77.1/24 dev eth0",
		"stray tunnel of ours":   "ip link add sluice.99 type vxlan id 99 dev eth0 dstport 8472",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := lone(t)
			nodes := []overlay.Node{node(1), node(2)}
			stop := m.start(nodes, dual(nil))
			m.awaitReady(1)
			want := m.dump()
			if strings.Contains(name, whileDown) {
				stop()
				m.Run(edit)
				m.start(nodes, dual(nil))
			} else {
				m.Run(edit)
			}
			start := time.Now()
			m.awaitDump(2*time.Second, want)
			t.Logf("healed within %s", time.Since(start).Round(time.Millisecond))
			m.awaitReady(1)
		})
	}
}

// whileDown marks edits that take more than one command, between which healing would get.
const whileDown = "while the agent is down"

// A restart finds what an earlier life left, of other nodes and another configuration.
func TestStalePeersAreRemovedAtStart(t *testing.T) {
	t.Parallel()
	m := lone(t)
	stop := m.start([]overlay.Node{node(1), node(2)}, dual(nil))
	m.awaitReady(1)
	want := m.dump()
	stop()

	stop = m.start([]overlay.Node{node(1), node(2), node(3), node(4)}, dual(nil))
	m.awaitReady(3)
	if got := m.dump(); got == want {
		t.Fatal("new nodes change nothing")
	}
	stop()

	stop = m.start([]overlay.Node{node(1), node(2)}, dual(nil))
	m.awaitReady(1)
	if got := m.dump(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	stop()

	m.start([]overlay.Node{node(1), node(2)}, dual(func(c *overlay.Config) { c.VNI = 7 }))
	m.awaitReady(1)
	links := m.Run("ip link")
	if strings.Contains(links, "sluice.1:") || !strings.Contains(links, "sluice.7:") {
		t.Errorf("the tunnel of the old configuration is left:\n%s", links)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	m := lone(t)
	before := m.dump()
	stop := m.start([]overlay.Node{node(1), node(2)}, dual(nil))
	m.awaitReady(1)
	stop()
	for range 2 {
		if err := overlay.Remove(overlay.Options{NetNS: m.NetNS}); err != nil {
			t.Fatal(err)
		}
		if got := m.dump(); got != before {
			t.Errorf("got:\n%s\nwant:\n%s", got, before)
		}
	}
}
