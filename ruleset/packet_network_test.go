package ruleset_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/ruleworld"
	"github.com/sluice-net/sluice/test/stretch"
	"github.com/sluice-net/sluice/test/testnet"
)

// arrive sends datagrams that claim to be from src, and then one with its true source, and returns
// how many of the former arrived.
func (w *packetWorld) arrive(sender string, src netip.Addr, honest, to string, port uint16) uint64 {
	w.T.Helper()
	const claims = 20
	family := 6
	if src.Is4() {
		family = 4
	}
	sink := w.Hosts[to].Sink(testnet.UDP, port)
	defer sink.Close()
	dst := netip.AddrPortFrom(w.Addr(to, family), port)
	for range claims {
		if err := w.Hosts[sender].SendUDP(netip.AddrPortFrom(src, 4242), dst); err != nil {
			w.T.Fatal(err)
		}
	}
	before := sink.Received()
	if err := w.Hosts[honest].SendUDP(netip.AddrPortFrom(w.Addr(honest, family), 4243),
		dst); err != nil {
		w.T.Fatal(err)
	}
	waitFor(w.T, "the honest datagram", func() bool {
		return sink.Received() > before || before > 0
	})
	received := sink.Received()
	if before == 0 {
		received-- // the honest one
	}
	return received
}

// TestOrigin: a host that poses as a pod gets nothing through, although a policy admits the pod.
func TestOrigin(t *testing.T) {
	t.Parallel()
	admit := map[string]string{
		"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`}
	for name, c := range map[string]struct {
		network ruleset.Network
		pass    bool
	}{
		"without the network's rules": {ruleset.Network{}, true},
		"with them":                   {ruleworld.Network(), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPacketWorld(t, ruleset.Config{Network: c.network})
			w.SetPolicy(admit)
			for i, family := range packetworld.BothFamilies {
				got := w.arrive("out", w.Addr("dev/web", family), "dev/web", "dev/db",
					uint16(7000+i))
				if (got > 0) != c.pass {
					t.Errorf("IPv%d: %d datagrams of the one that poses arrived", family, got)
				}
				// A pod that poses as another is stopped with and without them.
				if got := w.arrive("prod/web", w.Addr("dev/web", family), "dev/web", "dev/db",
					uint16(7010+i)); got > 0 {
					t.Errorf("IPv%d: %d datagrams of a pod that poses arrived", family, got)
				}
			}
		})
	}
}

// TestPodToLoopback: a pod doesn't get to what listens on the node's loopback, also where host
// ports have made the kernel route there.
func TestPodToLoopback(t *testing.T) {
	t.Parallel()
	loopback := netip.MustParseAddr("127.0.0.1")
	for name, c := range map[string]struct {
		network ruleset.Network
		pass    bool
	}{"without the network's rules": {ruleset.Network{}, true},
		"with them": {ruleworld.Network(), false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPacketWorld(t, ruleset.Config{Network: c.network})
			w.routeLoopback("dev/web")
			sink := w.Hosts["node"].Sink(testnet.UDP, 7000)
			// The pod's own kernel doesn't send there, so the packet goes by the link.
			for range 10 {
				w.sendOnLink("dev/web", datagram4(w.Addr("dev/web", 4), loopback, 7000))
			}
			err := w.Hosts["dev/web"].SendUDP(netip.AddrPortFrom(w.Addr("dev/web", 4), 9),
				netip.AddrPortFrom(w.Addr("node", 4), 7000))
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the honest datagram", func() bool { return sink.Received() > 0 })
			if got := sink.Received(); (got > 1) != c.pass {
				t.Errorf("%d datagrams arrived, 1 of them honest", got)
			}
		})
	}
}

// sendOnLink sends an IPv4 packet to the node by a pod's link, past the pod's own routes.
func (w *packetWorld) sendOnLink(pod string, packet []byte) {
	w.T.Helper()
	var gateway net.HardwareAddr
	err := w.Node.Do(func() error {
		link, err := net.InterfaceByName(w.Hosts[pod].Interface())
		if err == nil {
			gateway = link.HardwareAddr
		}
		return err
	})
	if err != nil {
		w.T.Fatal(err)
	}
	if err := w.Hosts[pod].Do(func() error { return sendFrame(gateway, packet) }); err != nil {
		w.T.Fatal(err)
	}
}

// sendFrame sends an IPv4 packet by the link that isn't the loopback.
func sendFrame(to net.HardwareAddr, packet []byte) error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(links, func(l net.Interface) bool {
		return l.Flags&net.FlagLoopback == 0
	})
	const ipv4 = 0x0008 // ETH_P_IP in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, ipv4)
	if err != nil {
		return err
	}
	address := &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: links[i].Index, Halen: 6}
	copy(address.Addr[:], to)
	return errors.Join(unix.Sendto(fd, packet, 0, address), unix.Close(fd))
}

// datagram4 is a UDP datagram without a payload, nor a checksum.
func datagram4(src, dst netip.Addr, port uint16) []byte {
	packet := make([]byte, 28)
	packet[0], packet[3], packet[8], packet[9] = 0x45, 28, 64, policy.ProtocolUDP
	copy(packet[12:], src.AsSlice())
	copy(packet[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(packet[22:], port)
	binary.BigEndian.PutUint16(packet[24:], 8)
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum+sum>>16))
	return packet
}

// conntrack lists the connections that the node tracks.
func (w *packetWorld) conntrack() string {
	w.T.Helper()
	var out []byte
	err := w.Node.Do(func() (err error) {
		out, err = exec.Command("conntrack", "-L").Output()
		return err
	})
	if err != nil {
		w.T.Fatalf("listing connections: %v", err)
	}
	return string(out)
}

// TestTunnelPackets: what a node takes for the tunnel's comes from peers only, also where another
// program leaves all that goes to the tunnel's port untracked.
func TestTunnelPackets(t *testing.T) {
	t.Parallel()
	t.Run("alone", func(t *testing.T) {
		t.Parallel()
		w := tunnelPackets(t, "")
		tracked := regexp.MustCompile(`17 \d+ src=192\.0\.2\.10 `) // as who opened it
		if entries := w.conntrack(); tracked.MatchString(entries) {
			t.Errorf("the tunnel's packets are tracked:\n%s", entries)
		}
	})
	t.Run("beside one that leaves them untracked", func(t *testing.T) {
		t.Parallel()
		tunnelPackets(t, `table inet other { chain raw { type filter hook prerouting priority -310;
			udp dport 8472 ip daddr 198.51.100.1 notrack; }; }`)
	})
}

func tunnelPackets(t *testing.T, other string) *packetWorld {
	t.Helper()
	w := newPacketWorld(t, ruleset.Config{Network: ruleworld.Network()})
	open := newPacketWorld(t, ruleset.Config{})
	node := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), 8472)
	for _, world := range []*packetWorld{w, open} {
		if other != "" {
			world.Node.NftInput(other)
		}
		for _, name := range []string{"node", "out", "out2", "dev/db"} {
			world.Hosts[name].ServeUDP(8472)
		}
		world.Node.DNAT(testnet.UDP, netip.AddrPortFrom(packetworld.Service[4], 53), node)
		world.Node.DNAT(testnet.UDP, netip.AddrPortFrom(packetworld.Service[4], 54),
			netip.MustParseAddrPort("192.0.2.20:8472"))
	}
	for _, c := range []struct {
		from string
		to   netip.AddrPort
		pass bool
	}{
		{"out", node, true},   // a peer
		{"out2", node, false}, // no node
		{"dev/web", node, false},
		{"dev/web", netip.AddrPortFrom(packetworld.Service[4], 53), false},
		{"dev/web", netip.MustParseAddrPort("192.0.2.10:8472"), false},
		{"dev/web", netip.AddrPortFrom(packetworld.Service[4], 54), false},
		{"dev/web", netip.MustParseAddrPort("10.244.1.11:8472"), true}, // between pods
		{"out2", netip.MustParseAddrPort("10.244.1.11:8472"), true},
	} {
		for _, world := range []*packetWorld{w, open} {
			result := world.Hosts[c.from].Connect(testnet.UDP, c.to)
			if want := c.pass || world == open; result.OK != want {
				t.Errorf("%s to %s, with the rules: %t: %s", c.from, c.to, world == w, result)
			}
		}
	}
	return w
}

// TestTunnelWithoutAnEnd: where the node's end isn't known, no packets are taken for the tunnel's,
// also not a peer's.
func TestTunnelWithoutAnEnd(t *testing.T) {
	t.Parallel()
	for _, local := range []netip.Addr{{}, ruleworld.Network().Local} {
		network := ruleworld.Network()
		network.Local = local
		w := newPacketWorld(t, ruleset.Config{Network: network})
		w.Hosts["node"].ServeUDP(8472)
		result := w.Hosts["out"].Connect(testnet.UDP, netip.MustParseAddrPort("198.51.100.1:8472"))
		if result.OK != local.IsValid() {
			t.Errorf("with the end %s: %s", local, result)
		}
		w.Allowed("dev/web > dev/db tcp/80", "out > node tcp/80")
	}
}

// TestMasquerading: who is seen as the client.
func TestMasquerading(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*ruleset.Network)
		asPod  map[string]bool // by who is called, whether it sees the pod's address
	}{
		"on": {func(*ruleset.Network) {},
			map[string]bool{"out": false, "out2": true, "dev/db": true, "node": true}},
		"off": {func(n *ruleset.Network) { n.Masquerade = false },
			map[string]bool{"out": true, "out2": true, "dev/db": true, "node": true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			network := ruleworld.Network()
			c.change(&network)
			w := newPacketWorld(t, ruleset.Config{Network: network})
			for called, asPod := range c.asPod {
				for _, family := range packetworld.BothFamilies {
					for _, proto := range []testnet.Protocol{testnet.TCP, testnet.UDP} {
						pod := w.Addr("dev/web", family)
						result := w.Hosts["dev/web"].MustReach(t, proto,
							netip.AddrPortFrom(w.Addr(called, family), 80))
						client := clientOf(t, result)
						if (client.Addr() == pod) != asPod {
							t.Errorf("%s, %s: the client is %s", called, proto, client)
						}
						if client.Addr() != pod && proto == testnet.UDP &&
							client.Port() < ruleset.FirstMasquerade {
							t.Errorf("%s: a masqueraded port below %d: %s", called,
								ruleset.FirstMasquerade, client)
						}
					}
				}
			}
		})
	}
}

// clientOf is the client as the server saw it.
func clientOf(t *testing.T, r testnet.Result) netip.AddrPort {
	t.Helper()
	fields := strings.Fields(r.Reply)
	if len(fields) < 2 {
		t.Fatalf("reply %q", r.Reply)
	}
	client, err := netip.ParseAddrPort(fields[1])
	if err != nil {
		t.Fatalf("reply %q: %v", r.Reply, err)
	}
	return netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
}

// TestNetworkChangesInPlace: what changes about the network while pods talk changes only that.
func TestNetworkChangesInPlace(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{Network: ruleworld.Network()})
	w.SetPolicy(map[string]string{
		"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}]}`})
	next := ruleworld.Network()
	next.Port, next.Endpoints, next.Masquerade = 4789,
		[]netip.Addr{netip.MustParseAddr("192.0.2.20")}, false
	w.Render.SetNetwork(next, nil)
	w.Apply()
	w.Allowed("dev/web > dev/db tcp/80")
	w.Denied("prod/web > dev/db tcp/80")
	listing := w.Node.Nft("list", "table", "inet", "sluice")
	for _, want := range []string{"udp dport 4789", "192.0.2.20"} {
		if !strings.Contains(listing, want) {
			t.Errorf("no %s in\n%s", want, listing)
		}
	}
	for _, stale := range []string{"8472", "192.0.2.10 ", ruleset.Leaving} {
		if strings.Contains(listing, stale) {
			t.Errorf("still %s in\n%s", stale, listing)
		}
	}
	fresh := ruleset.NewRenderer(ruleset.Config{Network: next})
	if want, got := fresh.Ruleset(w.Cluster),
		w.Render.Ruleset(w.Cluster); len(want.Chains) != len(got.Chains) ||
		len(want.Sets) != len(got.Sets) {
		t.Errorf("%d chains and %d sets, from scratch %d and %d", len(got.Chains), len(got.Sets),
			len(want.Chains), len(want.Sets))
	}
}

// waitFor polls until ok.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(stretch.By(5 * time.Millisecond))
	defer tick.Stop()
	deadline := time.After(stretch.By(10 * time.Second))
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: didn't happen", what)
		}
	}
}
