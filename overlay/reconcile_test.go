package overlay_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/test/stretch"
)

// Whatever way a node took to a state, it is the same as on a node that has known no other.
func TestStatesInRandomOrder(t *testing.T) {
	t.Parallel()
	type state struct {
		nodes  []overlay.Node
		config overlay.Config
	}
	with := func(nodes ...overlay.Node) []overlay.Node {
		return append([]overlay.Node{node(1)}, nodes...)
	}
	swapped := func(i, j int) overlay.Node {
		return changed(node(i), func(n *overlay.Node) { n.PodCIDRs = node(j).PodCIDRs })
	}
	moved := changed(node(2), func(n *overlay.Node) {
		n.Addresses = addrs("192.168.77.202", "fd77::202")
	})
	far := changed(node(3), func(n *overlay.Node) {
		n.Addresses = addrs("192.168.88.3", "fd88::3")
	})
	states := map[string]state{
		"alone":   {with(), dual(nil)},
		"two":     {with(node(2)), dual(nil)},
		"three":   {with(node(2), node(3)), dual(nil)},
		"swapped": {with(swapped(2, 3), swapped(3, 2)), dual(nil)},
		"moved":   {with(moved, far), dual(nil)},
		"IPv4": {with(node(2), node(3)),
			dual(func(c *overlay.Config) { c.IPv6Network = netip.Prefix{} })},
		"IPv6": {with(node(2), node(3)),
			dual(func(c *overlay.Config) { c.Network = netip.Prefix{} })},
		"over IPv6": {with(node(2), node(3)),
			dual(func(c *overlay.Config) { c.Underlay = overlay.IPv6 })},
		"direct": {with(node(2), far), dual(func(c *overlay.Config) { c.DirectRouting = true })},
		"host-gw": {with(node(2), node(3)),
			dual(func(c *overlay.Config) { c.Backend = overlay.HostGW })},
		"another VNI": {with(node(2), node(3)), dual(func(c *overlay.Config) { c.VNI = 7 })},
		"another port": {with(node(2), node(3)),
			dual(func(c *overlay.Config) { c.Port = 4789 })},
		"another MTU": {with(node(2), node(3)),
			dual(func(c *overlay.Config) { c.MTU = 1400 })},
		"another own CIDR": {[]overlay.Node{swapped(1, 9), node(2)}, dual(nil)},
	}
	want := map[string]string{}
	names := make([]string, 0, len(states))
	for name, s := range states {
		m := lone(t)
		stop := m.start(s.nodes, s.config)
		m.awaitReady(len(s.nodes) - 1)
		want[name] = m.dump()
		stop()
		names = append(names, name)
	}
	slices.Sort(names)
	seed := rand.Uint64() //nolint:gosec // a test's choice
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's choice
	m := lone(t)
	m.start(states["alone"].nodes, states["alone"].config)
	steps := stretch.Fewer(60)
	var path []string
	for range steps {
		for range random.IntN(3) { // passed on the way, with or without being reached
			name := names[random.IntN(len(names))]
			path = append(path, "("+name+")")
			m.rec.Set("node1", states[name].nodes, states[name].config)
		}
		name := names[random.IntN(len(names))]
		path = append(path, name)
		m.rec.Set("node1", states[name].nodes, states[name].config)
		m.await(patience, "state "+name, func() error {
			if got := m.dump(); got != want[name] {
				return fmt.Errorf("after %v got:\n%s\nwant:\n%s\nstatus: %s", path, got, want[name],
					m.rec.Status().Reason)
			}
			return nil
		})
	}
}

// A node without what it needs says so, changes nothing, and goes on as soon as it can.
func TestWaitsWithAReason(t *testing.T) {
	t.Parallel()
	m := lone(t)
	m.Run("ip addr del 192.168.77.1/24 dev eth0")
	noCIDR := changed(node(1), func(n *overlay.Node) { n.PodCIDRs = nil })
	m.start([]overlay.Node{noCIDR, node(2)}, dual(nil))
	awaitReason := func(want string) {
		m.await(patience, "reason", func() error {
			if s := m.rec.Status(); s.Ready || !strings.Contains(s.Reason, want) {
				return fmt.Errorf("got ready %t, %q, want %q", s.Ready, s.Reason, want)
			}
			return nil
		})
	}
	awaitReason("no link has the underlay address 192.168.77.1")
	m.Run("ip addr add 192.168.77.1/24 dev eth0")
	awaitReason("node1 has no pod CIDR yet")
	if dump := strings.TrimSpace(m.dump()); dump != "" {
		t.Errorf("something was changed:\n%s", dump)
	}
	m.rec.Set("node1", []overlay.Node{node(1), node(2)}, dual(nil))
	m.awaitReady(1)

	there := m.dump()
	m.rec.Set("node1", []overlay.Node{noCIDR, node(2)}, dual(nil))
	awaitReason("node1 has no pod CIDR yet")
	if s := m.rec.Status(); m.dump() != there || s.MTU != 1450 || s.Tunnel != "sluice.1" ||
		len(s.Peers) != 1 {
		t.Errorf("what worked was taken away: got %+v and:\n%s\nwant:\n%s", s, m.dump(), there)
	}
}

// The underlay's MTU is followed both ways.
func TestFollowsTheUnderlaysMTU(t *testing.T) {
	t.Parallel()
	m := lone(t)
	m.start([]overlay.Node{node(1), node(2)}, dual(nil))
	m.awaitReady(1)
	for _, mtu := range []int{1500, 1400, 9000, 1350} {
		m.Run(fmt.Sprintf("ip link set eth0 mtu %d", mtu))
		m.await(2*time.Second, "change of MTU", func() error {
			s := m.rec.Status()
			link := m.Run("ip link show sluice.1")
			if !strings.Contains(link, fmt.Sprintf("mtu %d ", mtu-50)) || s.MTU != mtu-50 ||
				!s.Ready {
				return fmt.Errorf("got %d (%s), %s", s.MTU, s.Reason, link)
			}
			return nil
		})
	}
}

// A device of somebody else that is in the way is named and left alone.
func TestNamesTheDeviceInTheWay(t *testing.T) {
	t.Parallel()
	for name, link := range map[string]string{
		"as flannel makes it": "ip link add flannel.1 up type vxlan id 1 dev eth0 dstport 8472 " +
			"local 192.168.77.1 nolearning",
		"the very same": "ip link add flannel.1 up type vxlan id 1 dev eth0 dstport 8472 " +
			"local 192.168.77.1 noudpcsum udp6zerocsumrx",
		"the very same, down": "ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 " +
			"local 192.168.77.1 noudpcsum udp6zerocsumrx",
		"the same port": "ip link add flannel.1 up type vxlan id 5 dev eth0 dstport 8472 local 192.168.77.1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := lone(t)
			m.Run(link)
			m.start([]overlay.Node{node(1), node(2)}, dual(nil))
			m.await(patience, "name", func() error {
				reason := m.rec.Status().Reason
				if !strings.Contains(reason, "link flannel.1 has VNI ") {
					return fmt.Errorf("got %q", reason)
				}
				return nil
			})
			m.Run("ip link del flannel.1")
			m.awaitReady(1)
		})
	}
}

// What flannel left behind doesn't stay in the way.
func TestTakesOverRoutes(t *testing.T) {
	t.Parallel()
	m := lone(t)
	m.Run(`ip link add flannel.1 up type vxlan id 1 dev eth0 dstport 9999 local 192.168.77.1
		ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
		ip -6 route add fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel.1 onlink`)
	m.start([]overlay.Node{node(1), node(2)}, dual(nil))
	m.awaitReady(1)
	for _, command := range []string{"ip route show root 10.244.0.0/16",
		"ip -6 route show root fd00:10:244::/56"} {
		routes := m.Run(command)
		if strings.Contains(routes, "flannel.1") || !strings.Contains(routes, "sluice.1") {
			t.Errorf("%s:\n%s", command, routes)
		}
	}
}

// Fifty nodes come at once, in one Set or one by one, and go again.
func TestFiftyNodesAtOnce(t *testing.T) {
	t.Parallel()
	m := lone(t)
	m.start([]overlay.Node{node(1)}, dual(nil))
	m.awaitReady(0)
	alone := m.dump()
	nodes := []overlay.Node{node(1)}
	for i := range 50 {
		nodes = append(nodes, node(i+2))
		m.rec.Set("node1", nodes, dual(nil))
	}
	start := time.Now()
	m.awaitReady(50)
	t.Logf("50 nodes joined within %s", time.Since(start).Round(time.Millisecond))
	if n := strings.Count(m.dump(), "onlink"); n != 100 {
		t.Errorf("got %d routes, want 100", n)
	}
	m.rec.Set("node1", nodes[:1], dual(nil))
	m.awaitDump(patience, alone)
}

func TestSysctls(t *testing.T) {
	t.Parallel()
	m := lone(t)
	m.sysctl("ipv6/conf/eth0/accept_ra", "1")
	m.sysctl("ipv4/ip_forward", "0")
	m.sysctl("ipv6/conf/all/forwarding", "0")
	// Another uplink that has its default route from a router, one that doesn't, and one that
	// userspace looks after.
	m.Run(`ip link add eth1 up type veth peer name peer1
		ip link add eth2 up type veth peer name peer2
		ip link add eth3 up type veth peer name peer3
		ip link set peer1 up
		ip link set peer2 up
		ip link set peer3 up`)
	for _, link := range []string{"eth1", "eth2"} {
		m.sysctl("ipv6/conf/"+link+"/accept_ra", "1")
	}
	m.sysctl("ipv6/conf/eth3/accept_ra", "0")
	m.Run(`ip -6 route add default via fe80::9 dev eth1 proto ra
		ip -6 route add 2001:db8::/64 dev eth3 proto ra`)
	m.start([]overlay.Node{node(1), node(2)}, dual(nil))
	m.awaitReady(1)
	for key, want := range map[string]string{
		"ipv4/ip_forward":                  "1",
		"ipv4/conf/sluice.1/forwarding":    "1",
		"ipv6/conf/all/forwarding":         "1",
		"ipv6/conf/sluice.1/forwarding":    "1",
		"ipv6/conf/eth0/accept_ra":         "2",
		"ipv6/conf/eth1/accept_ra":         "2",
		"ipv6/conf/eth2/accept_ra":         "1",
		"ipv6/conf/eth3/accept_ra":         "0",
		"ipv6/conf/sluice.1/addr_gen_mode": "1",
	} {
		if got := m.readSysctl(key); got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
	if routes := m.Run("ip -6 route show default"); !strings.Contains(routes, "eth1 proto ra") {
		t.Errorf("the default route from a router advertisement is gone: %q", routes)
	}
	if got := m.rec.Status().ReversePathFilters; got["eth0"] == "" || got["all"] == "" {
		t.Errorf("rp_filter isn't reported: %v", got)
	}
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding",
		"ipv4/conf/sluice.1/forwarding"} {
		m.sysctl(key, "0")
		m.await(2*time.Second, key, func() error {
			if m.readSysctl(key) != "1" {
				return fmt.Errorf("it is off")
			}
			return nil
		})
	}
}

// Per peer the neighbour and the forward come before the route, and go after it.
func TestDiffOrder(t *testing.T) {
	t.Parallel()
	before, err := overlay.Desired("node1", []overlay.Node{node(1), node(2)}, dual(nil), eth0(1))
	if err != nil {
		t.Fatal(err)
	}
	after, err := overlay.Desired("node1", []overlay.Node{node(1), node(3)}, dual(nil), eth0(1))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, op := range overlay.Diff(after.State, before.State) {
		got = append(got, op.String())
	}
	want := withMACs(`ip neigh replace 10.244.3.0 lladdr MAC3 dev sluice.1 nud permanent
ip neigh replace fd00:10:244:3:: lladdr MAC3 dev sluice.1 nud permanent
bridge fdb replace MAC3 dev sluice.1 dst 192.168.77.3 self permanent
ip route replace 10.244.3.0/24 via 10.244.3.0 dev sluice.1 onlink proto 84
ip route replace fd00:10:244:3::/64 via fd00:10:244:3:: dev sluice.1 onlink proto 84
ip route del 10.244.2.0/24 proto 84
ip route del fd00:10:244:2::/64 proto 84
bridge fdb del MAC2 dev sluice.1
ip neigh del 10.244.2.0 dev sluice.1
ip neigh del fd00:10:244:2:: dev sluice.1`)
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got:\n%s\nwant:\n%s", text, want)
	}
}

// A peer that can't be reached doesn't keep the others from being reached.
func TestOnePeerFails(t *testing.T) {
	t.Parallel()
	m := lone(t)
	bad := changed(node(2), func(n *overlay.Node) {
		n.Addresses = addrs("192.168.77.255")
	}) // the subnet's broadcast address
	m.start([]overlay.Node{node(1), bad, node(3)},
		overlay.Config{Network: net4, Backend: overlay.HostGW})
	m.await(patience, "way to the other peer", func() error {
		routes, reason := m.Run("ip route"), m.rec.Status().Reason
		if !strings.Contains(routes, "10.244.3.0/24 via 192.168.77.3") ||
			!strings.Contains(reason, "10.244.2.0/24 via 192.168.77.255") {
			return fmt.Errorf("%s, routes:\n%s", reason, routes)
		}
		return nil
	})
	m.rec.Set("node1", []overlay.Node{node(1), node(2), node(3)},
		overlay.Config{Network: net4, Backend: overlay.HostGW})
	m.awaitReady(2)
}
