package overlay_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/link"
	"github.com/sluice-net/sluice/overlay"
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// node is number i, on 192.168.77.0/24 and fd77::/64, with pods of both families.
func node(i int) overlay.Node {
	return overlay.Node{
		Name: fmt.Sprintf("node%d", i),
		PodCIDRs: prefixes(
			fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd00:10:244:%x::/64", i)),
		Addresses: addrs(fmt.Sprintf("192.168.77.%d", i), fmt.Sprintf("fd77::%x", i)),
	}
}

func changed(n overlay.Node, change func(*overlay.Node)) overlay.Node {
	change(&n)
	return n
}

func eth0(i int) []overlay.Link {
	return []overlay.Link{
		{Name: "lo", MTU: 65536, Prefixes: prefixes("127.0.0.1/8", "::1/128"), Loopback: true},
		{Name: "eth0", MTU: 1500,
			Prefixes: prefixes(fmt.Sprintf("192.168.77.%d/24", i), fmt.Sprintf("fd77::%x/64", i))},
	}
}

func TestDesired(t *testing.T) {
	t.Parallel()
	const withoutIPv6 = "node1: it has no IPv6 pod CIDR, although IPv6 is on: " +
		"its pods get no such address"
	four := func(n *overlay.Node) { n.PodCIDRs = n.PodCIDRs[:1] }
	far := changed(node(3), func(n *overlay.Node) {
		n.Addresses = addrs("192.168.88.3", "fd88::3")
	})
	tests := map[string]struct {
		nodes   []overlay.Node
		config  overlay.Config
		mtu     int
		want    string
		skipped string
	}{
		"alone": {
			nodes: []overlay.Node{node(1)}, config: dual(nil), mtu: 1450,
			want: `
ip link add sluice.1 address 56:be:57:4d:8e:b9 mtu 1450 up type vxlan id 1 local 192.168.77.1 dev eth0 dstport 8472 nolearning noudpcsum noudp6zerocsumtx udp6zerocsumrx
ip addr replace 10.244.1.0/32 dev sluice.1
ip addr replace fd00:10:244:1::/128 dev sluice.1 nodad
`,
		},
		"vxlan over IPv4": {
			nodes: []overlay.Node{node(1), node(2)}, config: dual(nil), mtu: 1450,
			want: `
ip link add sluice.1 address MAC1 mtu 1450 up type vxlan id 1 local 192.168.77.1 dev eth0 dstport 8472 nolearning noudpcsum noudp6zerocsumtx udp6zerocsumrx
ip addr replace 10.244.1.0/32 dev sluice.1
ip addr replace fd00:10:244:1::/128 dev sluice.1 nodad
ip neigh replace 10.244.2.0 lladdr MAC2 dev sluice.1 nud permanent
ip neigh replace fd00:10:244:2:: lladdr MAC2 dev sluice.1 nud permanent
bridge fdb replace MAC2 dev sluice.1 dst 192.168.77.2 self permanent
ip route replace 10.244.2.0/24 via 10.244.2.0 dev sluice.1 onlink proto 84
ip route replace fd00:10:244:2::/64 via fd00:10:244:2:: dev sluice.1 onlink proto 84
`,
		},
		"vxlan over IPv6, of IPv4 pods": {
			nodes: []overlay.Node{changed(node(1), four), changed(node(2), four)},
			config: dual(func(c *overlay.Config) {
				c.Underlay, c.VNI, c.Port, c.MTU = overlay.IPv6, 77, 4789, 1400
			}),
			mtu: 1330,
			want: `
ip link add sluice.77 address MAC1 mtu 1330 up type vxlan id 77 local fd77::1 dev eth0 dstport 4789 nolearning noudpcsum udp6zerocsumtx udp6zerocsumrx
ip addr replace 10.244.1.0/32 dev sluice.77
ip neigh replace 10.244.2.0 lladdr MAC2 dev sluice.77 nud permanent
bridge fdb replace MAC2 dev sluice.77 dst fd77::2 self permanent
ip route replace 10.244.2.0/24 via 10.244.2.0 dev sluice.77 onlink proto 84
`,
			skipped: withoutIPv6,
		},
		"first address is IPv6": {
			nodes: []overlay.Node{
				changed(node(1), func(n *overlay.Node) { four(n); slices.Reverse(n.Addresses) }),
				changed(node(2), func(n *overlay.Node) { four(n); n.Addresses = n.Addresses[:1] }),
			},
			config: dual(nil), mtu: 1430,
			want: `
ip link add sluice.1 address MAC1 mtu 1430 up type vxlan id 1 local fd77::1 dev eth0 dstport 8472 nolearning noudpcsum udp6zerocsumtx udp6zerocsumrx
ip addr replace 10.244.1.0/32 dev sluice.1
`,
			skipped: withoutIPv6 + "\nnode2: it has no IPv6 address, which is what the underlay is",
		},
		"underlay addresses by annotation": {
			nodes: []overlay.Node{
				changed(node(1), func(n *overlay.Node) {
					four(n)
					n.UnderlayIP, n.Addresses = n.Addresses[0], addrs("172.16.0.1")
				}),
				changed(node(2), func(n *overlay.Node) {
					four(n)
					n.UnderlayIP = netip.MustParseAddr("192.168.77.22")
				}),
			},
			config: dual(nil), mtu: 1450,
			want: `
ip link add sluice.1 address MAC1 mtu 1450 up type vxlan id 1 local 192.168.77.1 dev eth0 dstport 8472 nolearning noudpcsum noudp6zerocsumtx udp6zerocsumrx
ip addr replace 10.244.1.0/32 dev sluice.1
ip neigh replace 10.244.2.0 lladdr MAC2 dev sluice.1 nud permanent
bridge fdb replace MAC2 dev sluice.1 dst 192.168.77.22 self permanent
ip route replace 10.244.2.0/24 via 10.244.2.0 dev sluice.1 onlink proto 84
`,
			skipped: withoutIPv6,
		},
		"host-gw": {
			nodes: []overlay.Node{node(1), node(2), far}, mtu: 1500,
			config: dual(func(c *overlay.Config) { c.Backend = overlay.HostGW }),
			want: `
ip route replace 10.244.2.0/24 via 192.168.77.2 dev eth0 proto 84
ip route replace fd00:10:244:2::/64 via fd77::2 dev eth0 proto 84
`,
			skipped: "node3: no way to 10.244.3.0/24: 192.168.88.3 is on no subnet of eth0\n" +
				"node3: no way to fd00:10:244:3::/64: fd88::3 is on no subnet of eth0",
		},
		"DirectRouting": {
			nodes: []overlay.Node{node(1), node(2), far}, mtu: 1450,
			config: dual(func(c *overlay.Config) { c.DirectRouting = true }),
			want: `
ip link add sluice.1 address MAC1 mtu 1450 up type vxlan id 1 local 192.168.77.1 dev eth0 dstport 8472 nolearning noudpcsum noudp6zerocsumtx udp6zerocsumrx
ip addr replace 10.244.1.0/32 dev sluice.1
ip addr replace fd00:10:244:1::/128 dev sluice.1 nodad
ip route replace 10.244.2.0/24 via 192.168.77.2 dev eth0 proto 84
ip neigh replace 10.244.3.0 lladdr MAC3 dev sluice.1 nud permanent
ip neigh replace fd00:10:244:3:: lladdr MAC3 dev sluice.1 nud permanent
bridge fdb replace MAC3 dev sluice.1 dst 192.168.88.3 self permanent
ip route replace 10.244.3.0/24 via 10.244.3.0 dev sluice.1 onlink proto 84
ip route replace fd00:10:244:3::/64 via fd00:10:244:3:: dev sluice.1 onlink proto 84
ip route replace fd00:10:244:2::/64 via fd77::2 dev eth0 proto 84
`,
		},
		"a family that is off": {
			nodes: []overlay.Node{node(1), node(2),
				changed(node(3), func(n *overlay.Node) { n.PodCIDRs = n.PodCIDRs[1:] })}, mtu: 1500,
			config: overlay.Config{Network: net4, Backend: overlay.HostGW},
			want: `
ip route replace 10.244.2.0/24 via 192.168.77.2 dev eth0 proto 84
`,
			skipped: "node3: it has no pod CIDR of a family that is on",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan, err := overlay.Desired("node1", test.nodes, test.config, eth0(1))
			if err != nil {
				t.Fatal(err)
			}
			if plan.MTU != test.mtu {
				t.Errorf("got MTU %d, want %d", plan.MTU, test.mtu)
			}
			wantText(t, plan.String(), withMACs(test.want))
			wantText(t, skippedText(plan.Skipped), test.skipped)
		})
	}
}

func withMACs(text string) string {
	for i := range 4 {
		text = strings.ReplaceAll(text, fmt.Sprintf("MAC%d", i),
			overlay.TunnelMAC(fmt.Sprintf("node%d", i)).String())
	}
	return text
}

// onLo is the links of node1 if it is a router, with its address on lo.
func onLo(eth1 []netip.Addr) []overlay.Link {
	links := []overlay.Link{{Name: "lo", MTU: 65536,
		Prefixes: prefixes("127.0.0.1/8", "10.255.0.1/32"), Loopback: true},
		{Name: "eth0", MTU: 1200}}
	if eth1 != nil {
		links = append(links, overlay.Link{Name: "eth1", MTU: 1500, Leads: true, LeadsTo: eth1},
			overlay.Link{Name: "eth2", MTU: 1400, Leads: true})
	}
	return links
}

// On a node that is a router nothing is bound to a link, the MTU is the least of those that lead
// out, and who can't be reached isn't a peer.
func TestDesiredOnLo(t *testing.T) {
	t.Parallel()
	own := changed(node(1), func(n *overlay.Node) { n.Addresses = addrs("10.255.0.1") })
	for _, backend := range []overlay.Backend{overlay.VXLAN, overlay.HostGW} {
		config := dual(func(c *overlay.Config) { c.Backend = backend })
		plan, err := overlay.Desired("node1", []overlay.Node{own, node(2), node(3)}, config,
			onLo(addrs("192.168.77.2")))
		if err != nil {
			t.Fatal(err)
		}
		if plan.Device != "" || !slices.Equal(plan.Uplinks, []string{"eth1", "eth2"}) {
			t.Errorf("%s: bound to %q, uplinks %q", backend, plan.Device, plan.Uplinks)
		}
		const noWay3 = "node3: no route leads to its address 192.168.77.3"
		if backend == overlay.HostGW {
			wantText(t, skippedText(plan.Skipped),
				noWay3+"\nnode2: no way to 10.244.2.0/24: 192.168.77.2 is on no subnet of lo\n"+
					"node2: no way to fd00:10:244:2::/64: no link has an IPv6 address of this node")
			continue
		}
		wantText(t, skippedText(plan.Skipped), noWay3)
		if len(plan.Peers) != 1 || plan.Peers[0].Name != "node2" || plan.MTU != 1350 {
			t.Errorf("MTU %d, peers %v", plan.MTU, plan.Peers)
		}
		text := plan.String()
		if !strings.Contains(text, "vxlan id 1 local 10.255.0.1 dstport 8472") {
			t.Errorf("got:\n%s", text)
		}
	}
}

func skippedText(all []overlay.Skipped) string {
	var lines []string
	for _, s := range all {
		lines = append(lines, s.String())
	}
	return strings.Join(lines, "\n")
}

// wantText compares lines, in any order: which peer comes first depends on hashes of names.
func wantText(t *testing.T, got, want string) {
	t.Helper()
	if got, want := sortedLines(got), sortedLines(want); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func sortedLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestDesiredCant(t *testing.T) {
	t.Parallel()
	with := func(change func(*overlay.Node)) []overlay.Node {
		return []overlay.Node{changed(node(1), change), node(2)}
	}
	tests := map[string]struct {
		nodes  []overlay.Node
		config overlay.Config
		links  []overlay.Link
		want   string
	}{
		"no such node": {[]overlay.Node{node(2)}, dual(nil), eth0(1), "there is no node node1"},
		"no pod CIDR": {with(func(n *overlay.Node) { n.PodCIDRs = nil }), dual(nil), eth0(1),
			"node1 has no pod CIDR yet"},
		"no address": {with(func(n *overlay.Node) { n.Addresses = nil }), dual(nil),
			eth0(1), "no address on the underlay"},
		"address on no link": {with(func(n *overlay.Node) { n.Addresses = addrs("192.168.77.99") }),
			dual(nil), eth0(1), "no link has the underlay address 192.168.77.99"},
		"address on lo": {with(func(n *overlay.Node) { n.Addresses = addrs("127.0.0.1") }),
			dual(nil), eth0(1), "its address 127.0.0.1 is no node's"},
		"address on lo, no way out": {
			with(func(n *overlay.Node) { n.Addresses = addrs("10.255.0.1") }), dual(nil), onLo(nil),
			"the underlay address 10.255.0.1 of node node1 is on lo, and no route leads from " +
				"there to another node",
		},
		"CIDR elsewhere": {with(func(n *overlay.Node) {
			n.PodCIDRs = prefixes("10.9.0.0/24")
		}), dual(nil), eth0(1),
			"10.9.0.0/24 of node node1 is outside the pod network 10.244.0.0/16"},
		"CIDRs overlap": {with(func(n *overlay.Node) {
			n.PodCIDRs = prefixes("10.244.1.0/24", "10.244.1.0/25")
		}), dual(nil), eth0(1), "overlap"},
		"CIDR on underlay": {with(func(n *overlay.Node) {
			n.PodCIDRs = prefixes("192.168.77.0/24")
		}), dual(func(c *overlay.Config) { c.Network = netip.MustParsePrefix("192.168.0.0/16") }),
			eth0(1), "contains its underlay address 192.168.77.1"},
		"no room for headers": {with(func(*overlay.Node) {}), dual(nil),
			[]overlay.Link{{Name: "eth0", MTU: 1300, Prefixes: prefixes("192.168.77.1/24")}},
			"an MTU of 1300 on eth0 leaves 1250 for pods, who need 1280"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := overlay.Desired("node1", test.nodes, test.config, test.links)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// What a peer claims must not move anybody else's traffic.
func TestHostilePeers(t *testing.T) {
	t.Parallel()
	claims := func(cidrs ...string) func(*overlay.Node) {
		return func(n *overlay.Node) { n.PodCIDRs = prefixes(cidrs...) }
	}
	at := func(addresses ...string) func(*overlay.Node) {
		return func(n *overlay.Node) { n.Addresses = addrs(addresses...) }
	}
	tests := map[string]struct {
		hostile func(*overlay.Node)
		want    string
	}{
		"our CIDR": {
			claims("10.244.1.0/24"), "its pod CIDR 10.244.1.0/24 overlaps that of node node1"},
		"a part of ours":      {claims("10.244.1.64/26"), "overlaps that of node node1"},
		"all around ours":     {claims("10.244.0.0/20"), "overlaps that of node node1"},
		"another's CIDR":      {claims("fd00:10:244:2::/64"), "overlaps that of node node2"},
		"a part of another's": {claims("10.244.2.128/25"), "overlaps that of node node2"},
		"twice its own": {
			claims("10.244.9.0/24", "10.244.9.0/25"), "overlaps that of node node9",
		},
		"outside the network": {
			claims("10.245.9.0/24"), "10.245.9.0/24 is outside the pod network 10.244.0.0/16"},
		"more than the network": {claims("10.0.0.0/8"), "is outside the pod network"},
		"everything":            {claims("0.0.0.0/0", "::/0"), "is outside the pod network"},
		"our address":           {at("192.168.77.1"), "its address 192.168.77.1 is this node's"},
		"our other address":     {at("172.16.0.1"), "its address 172.16.0.1 is this node's"},
		"loopback":              {at("127.0.0.9"), "its address 127.0.0.9 is no node's"},
		"multicast":             {at("224.0.0.9"), "is no node's"},
		"broadcast":             {at("255.255.255.255"), "is no node's"},
		"nowhere":               {at("0.0.0.0"), "is no node's"},
		"link-local":            {at("169.254.9.9"), "is no node's"},
		"one of our pods": {at("10.244.1.9"),
			"its address 10.244.1.9 is a pod's: it is in the pod CIDR of node node1"},
		"another's pod": {at("10.244.2.9"), "it is in the pod CIDR of node node2"},
		"by annotation": {func(n *overlay.Node) {
			n.UnderlayIP = netip.MustParseAddr("192.168.77.1")
		}, "is this node's"},
		"no address": {at(), "it has no IPv4 address"},
		"covers another's address": {claims("10.244.200.0/24"),
			"its pod CIDR 10.244.200.0/24 contains a node's address 10.244.200.7"},
		"covers an address of a link": {claims("10.244.201.0/24"),
			"its pod CIDR 10.244.201.0/24 contains this node's address 10.244.201.1"},
	}
	nodes := []overlay.Node{
		changed(node(1), func(n *overlay.Node) {
			n.Created = time.Unix(3, 0)
		}), // it keeps its own whatever its age
		changed(node(2), func(n *overlay.Node) {
			n.Created = time.Unix(1, 0)
			n.UnderlayIP = netip.MustParseAddr("10.244.200.7")
		}),
	}
	links := append(eth0(1),
		overlay.Link{Name: "br0", MTU: 1500, Prefixes: prefixes("10.244.201.1/24")},
		overlay.Link{Name: "eth1", MTU: 1500, Prefixes: prefixes("172.16.0.1/16")})
	alone, err := overlay.Desired("node1", nodes, dual(nil), links)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hostile := changed(node(9), func(n *overlay.Node) {
				test.hostile(n)
				n.Created = time.Unix(2, 0)
			})
			plan, err := overlay.Desired("node1", append([]overlay.Node{hostile}, nodes...),
				dual(nil), links)
			if err != nil {
				t.Fatal(err)
			}
			if len(plan.Skipped) == 0 || !strings.Contains(skippedText(plan.Skipped), "node9: ") ||
				!strings.Contains(skippedText(plan.Skipped), test.want) {
				t.Errorf("got %q, want %q", skippedText(plan.Skipped), test.want)
			}
			for _, op := range overlay.Diff(plan.State, alone.State) {
				// What is left of a peer's claims may be about itself only.
				if text := op.String(); !strings.Contains(text, "10.244.9.") &&
					!strings.Contains(text, overlay.TunnelMAC("node9").String()) {
					t.Errorf("it made this: %s", text)
				}
			}
			for _, op := range overlay.Diff(alone.State, plan.State) {
				if text := op.String(); !strings.Contains(text, " del ") {
					t.Errorf("it took this away: %s", text)
				}
			}
		})
	}
}

func TestSeniorNodeKeepsItsCIDR(t *testing.T) {
	t.Parallel()
	same := func(i int, age int64) overlay.Node {
		return changed(node(i), func(n *overlay.Node) {
			n.PodCIDRs, n.Created = prefixes("10.244.9.0/24"), time.Unix(age, 0)
		})
	}
	for want, nodes := range map[string][]overlay.Node{
		"node2: its pod CIDR 10.244.9.0/24 overlaps that of node node3": {
			node(1), same(2, 8), same(3, 7)},
		"node3: its pod CIDR 10.244.9.0/24 overlaps that of node node2": {
			same(3, 7), same(2, 7), node(1)},
	} {
		plan, err := overlay.Desired("node1", nodes, dual(nil), eth0(1))
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, skippedText(plan.Skipped), want)
	}
}

func TestTunnelMAC(t *testing.T) {
	t.Parallel()
	seen := map[link.MAC]bool{}
	for i := range 5000 {
		mac := overlay.TunnelMAC(fmt.Sprintf("node-%d", i))
		if mac[0]&3 != 2 {
			t.Fatalf("%s isn't a locally administered unicast address", mac)
		}
		seen[mac] = true
	}
	if len(seen) != 5000 {
		t.Errorf("got %d different MACs of 5000", len(seen))
	}
}
