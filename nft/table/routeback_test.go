package table

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/stretch"
	"github.com/sluice-net/sluice/test/testnet"
)

func mustClose(t *testing.T, table *Table) {
	t.Helper()
	if err := table.Close(); err != nil {
		t.Error(err)
	}
}

// routeBackRules drop what a pod sends from an address that isn't its own, and what comes from
// elsewhere and claims to be from the pod network.
func routeBackRules() *nft.Ruleset {
	r := nft.NewRuleset()
	r.AddSet(&nft.Set{Name: "networks4", Key: []nft.Field{nft.SrcAddr4}, Interval: true,
		Guard: true, Elements: map[nft.Element]nft.Verdict{
			nft.RangeElement(addr("10.244.0.0"), addr("10.244.255.255")): {},
		}})
	r.AddSet(&nft.Set{Name: "networks6", Key: []nft.Field{nft.SrcAddr6}, Interval: true,
		Guard: true, Elements: map[nft.Element]nft.Verdict{
			nft.RangeElement(addr("fd00:10:244::"),
				addr("fd00:10:244:ffff:ffff:ffff:ffff:ffff")): {},
		}})
	r.AddChain(&nft.Chain{Name: "raw/1", Base: &nft.Base{Hook: nft.HookPrerouting, Priority: -300},
		Rules: []nft.Rule{
			rule(nft.MatchIface{Field: nft.InIface, Name: names.PodLinks}, nft.MatchNoRouteBack{},
				nft.Count{}, drop),
			rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr4}, Set: "networks4"},
				nft.MatchNoRouteBack{},
				nft.Count{}, drop),
			rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr6}, Set: "networks6"},
				nft.MatchNoRouteBack{},
				nft.Count{}, drop),
		}})
	return r
}

// A backCase is a packet that somebody sends, and whether it gets past the rules. Packets of cases
// differ in addresses or in what match matches.
type backCase struct {
	name     string
	from     *testnet.Host
	src, dst string
	proto    byte
	hops     byte
	match    string
	payload  []byte
	want     bool
}

// watchTable has counters for the packets of all cases, before the rules and behind them.
func watchTable(cases []backCase) string {
	var counters, before, behind strings.Builder
	for i, c := range cases {
		family := "ip"
		if addr(c.src).Is6() {
			family = "ip6"
		}
		match := fmt.Sprintf("%s saddr %s %[1]s daddr %[3]s %s", family, c.src, c.dst, c.match)
		fmt.Fprintf(&counters, "\tcounter came%d { }\n\tcounter passed%[1]d { }\n", i)
		fmt.Fprintf(&before, "\t\t%s counter name came%d\n", match, i)
		fmt.Fprintf(&behind, "\t\t%s counter name passed%d\n", match, i)
	}
	return fmt.Sprintf(`table inet watch {
%s	chain before {
		type filter hook prerouting priority -310
%s	}
	chain behind {
		type filter hook prerouting priority -290
%s	}
}`, &counters, &before, &behind)
}

var counterThatCounted = regexp.MustCompile(`counter (\w+) {\s+packets [1-9]`)

// passed sends the packets of all cases, and says which of them got past the rules.
func passed(t *testing.T, n *testnet.Node, cases []backCase) []bool {
	t.Helper()
	n.NftInput(watchTable(cases))
	defer n.Nft("delete", "table", "inet", "watch")
	for _, c := range cases {
		packet := ipPacket(addr(c.src), addr(c.dst), c.proto, c.hops, c.payload)
		if err := c.from.Do(func() error { return sendFrame(packet) }); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
	counted := func() map[string]bool {
		names := map[string]bool{}
		out := n.Nft("list", "counters", "table", "inet", "watch")
		for _, found := range counterThatCounted.FindAllStringSubmatch(out, -1) {
			names[found[1]] = true
		}
		return names
	}
	allCame := func(names map[string]bool) bool {
		for i := range cases {
			if !names[fmt.Sprintf("came%d", i)] {
				return false
			}
		}
		return true
	}
	tick := time.NewTicker(stretch.By(time.Millisecond))
	defer tick.Stop()
	for deadline := time.Now().Add(stretch.By(time.Minute)); !allCame(counted()); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not all packets came as far as the rules: %v", counted())
		}
	}
	names, got := counted(), make([]bool, len(cases)) // asked later, by another process
	for i := range cases {
		got[i] = names[fmt.Sprintf("passed%d", i)]
	}
	return got
}

// sendFrame sends an IP packet as it is, to everybody on the link.
func sendFrame(packet []byte) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	protocol := uint16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		protocol = unix.ETH_P_IPV6
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	to := &unix.SockaddrLinklayer{
		Protocol: protocol<<8 | protocol>>8, Ifindex: link.Attrs().Index, Halen: 6,
		Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	}
	return unix.Sendto(fd, packet, 0, to)
}

// ipPacket is a packet without options.
func ipPacket(src, dst netip.Addr, proto, hops byte, payload []byte) []byte {
	if src.Is6() {
		header := make([]byte, 40)
		header[0], header[6], header[7] = 6<<4, proto, hops
		binary.BigEndian.PutUint16(header[4:], uint16(len(payload)))
		copy(header[8:], src.AsSlice())
		copy(header[24:], dst.AsSlice())
		return slices.Concat(header, payload)
	}
	header := make([]byte, 20)
	header[0], header[8], header[9] = 4<<4|5, hops, proto
	binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(payload)))
	copy(header[12:], src.AsSlice())
	copy(header[16:], dst.AsSlice())
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum))
	return slices.Concat(header, payload)
}

// udp is a datagram without a checksum, which only IPv4 takes: none of them is meant to arrive
// further than the counter.
func udp(from, to uint16) []byte {
	return append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), to), 0,
		8, 0, 0)
}

func TestRouteBack(t *testing.T) {
	t.Parallel()
	node := testnet.NewNode(t)
	for _, a := range natNode {
		node.AddAddr(a)
	}
	pod := node.Pod("pod", natPods...)
	node.Pod("other", addr("10.244.1.3"), addr("fd00:10:244:1::3"))
	away := node.Outside("away", natOutside...)
	table, err := Open(Options{NetNS: node.NSFd()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { mustClose(t, table) }()

	const icmpv6, udpProto = unix.IPPROTO_ICMPV6, unix.IPPROTO_UDP
	solicit := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, natPods[1].AsSlice()...)
	cases := []backCase{
		{"the pod's own address", pod, "10.244.1.2", "203.0.113.9", udpProto, 64, "udp dport 77",
			udp(7, 77), true},
		{"its own, IPv6", pod, "fd00:10:244:1::2", "2001:db8:9::9", udpProto, 64, "udp dport 77",
			udp(7, 77), true},
		{"another pod's", pod, "10.244.1.3", "203.0.113.9", udpProto, 64, "udp dport 77",
			udp(7, 77), false},
		{"another pod's, IPv6", pod, "fd00:10:244:1::3", "2001:db8:9::9", udpProto, 64,
			"udp dport 77", udp(7, 77), false},
		{"a remote pod's", pod, "10.244.9.9", "203.0.113.9", udpProto, 64, "udp dport 77",
			udp(7, 77), false},
		{"somebody's outside", pod, "203.0.113.9", "10.244.1.3", udpProto, 64, "udp dport 77",
			udp(7, 77), false},
		{"somebody's outside, IPv6", pod, "2001:db8:9::9", "fd00:10:244:1::3", udpProto, 64,
			"udp dport 77", udp(7, 77), false},
		{"the node's", pod, "192.0.2.1", "10.244.1.3", udpProto, 64, "udp dport 77",
			udp(7, 77), false},
		{"the node's, IPv6", pod, "2001:db8::1", "fd00:10:244:1::3", udpProto, 64, "udp dport 77",
			udp(7, 77), false},
		{"no source", pod, "0.0.0.0", "10.244.1.3", udpProto, 64, "udp dport 77",
			udp(7, 77), false},
		{"no source, IPv6", pod, "::", "fd00:10:244:1::3", udpProto, 64, "udp dport 77",
			udp(7, 77), false},
		{"DHCP", pod, "0.0.0.0", "255.255.255.255", udpProto, 64, "udp dport 67",
			udp(68, 67), true},
		{"duplicate address detection", pod, "::", "ff02::1:ff00:2", icmpv6, 255,
			"icmpv6 type nd-neighbor-solicit", solicit, true},
		{"neighbour discovery", pod, "fe80::1234", "fe80::1", icmpv6, 255,
			"icmpv6 type nd-neighbor-solicit", solicit, true},
		{"its own from outside", away, "203.0.113.9", "10.244.1.2", udpProto, 64, "udp dport 77",
			udp(7, 77), true},
		{"its own from outside, IPv6", away, "2001:db8:9::9", "fd00:10:244:1::2", udpProto, 64,
			"udp dport 77", udp(7, 77), true},
		{"any other from outside", away, "198.51.100.7", "10.244.1.2", udpProto, 64, "udp dport 77",
			udp(7, 77), true},
		{"a local pod's from outside", away, "10.244.1.3", "10.244.1.2", udpProto, 64,
			"udp dport 77", udp(7, 77), false},
		{"a remote pod's from outside", away, "10.244.9.9", "10.244.1.2", udpProto, 64,
			"udp dport 77", udp(7, 77), false},
		{"a pod's from outside, IPv6", away, "fd00:10:244:9::9", "fd00:10:244:1::2", udpProto, 64,
			"udp dport 77", udp(7, 77), false},
	}
	run := func(what string, ruled bool) {
		for i, got := range passed(t, node, cases) {
			if c := cases[i]; got != (c.want || !ruled) {
				t.Errorf("%s: %s (%s to %s) passes: %v, want %v", what, c.name, c.src, c.dst,
					got, !got)
			}
		}
	}
	run("without", false)
	mustSync(t, table, routeBackRules())
	mustMatch(t, table)
	run("with", true)

	// What has a way back is what no way back is missing of.
	exists := nft.NewRuleset()
	fromPods := nft.MatchIface{Field: nft.InIface, Name: names.PodLinks}
	exists.AddChain(&nft.Chain{Name: "raw/1",
		Base: &nft.Base{Hook: nft.HookPrerouting, Priority: -300}, Rules: []nft.Rule{
			rule(fromPods, nft.MatchRouteBack{}, nft.Do{Verdict: nft.Verdict{Kind: nft.Accept}}),
			rule(fromPods, drop),
		}})
	mustSync(t, table, exists)
	mustMatch(t, table)
	for i, got := range passed(t, node, cases) {
		if c := cases[i]; c.from == pod && got != c.want {
			t.Errorf("%s (%s to %s) has a way back: %v", c.name, c.src, c.dst, got)
		}
	}
	mustSync(t, table, routeBackRules())

	// Connections still work, also of the node with itself from an address of the pod network, such
	// as its tunnel's.
	pod.ServeTCP(servedPort)
	node.Host().ServeTCP(servedPort)
	for _, a := range []netip.Addr{addr("10.244.1.0"), addr("fd00:10:244:1::")} {
		node.AddAddr(a)
		node.Host().MustReach(t, testnet.TCP, netip.AddrPortFrom(a, servedPort),
			testnet.FromAddr(a))
		pod.MustReach(t, testnet.TCP, netip.AddrPortFrom(a, servedPort))
	}
	away.MustReach(t, testnet.TCP, netip.AddrPortFrom(natPods[0], servedPort))
	away.MustReach(t, testnet.TCP, netip.AddrPortFrom(natPods[1], servedPort))
	if err := table.Sync(context.Background(), nft.NewRuleset()); err != nil {
		t.Fatal(err)
	}
	run("after", false)
}
