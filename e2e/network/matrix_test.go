package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/e2e/lab/capture"
)

const (
	underlayMTU = 1500
	overhead4   = 50 // what a tunnel over IPv4 adds to a packet
	overhead6   = 70
)

// Every backend with every pair of families for which it makes sense. A lab begins with the first
// backend, and is changed to the others.
func TestMatrix(t *testing.T) {
	t.Parallel()
	vxlan, direct, hostGW := lab.VXLAN, lab.DirectRouting, lab.HostGW
	for _, m := range []struct {
		pods, underlay lab.Families
		subnets        int
		filter         lab.RPFilter
		backends       []lab.Backend
	}{
		{lab.DualStack, lab.DualStack, 1, lab.RPFilterStrict, []lab.Backend{vxlan, direct, hostGW}},
		{lab.DualStack, lab.IPv4, 2, lab.RPFilterLoose, []lab.Backend{direct, vxlan}},
		{lab.DualStack, lab.IPv6, 2, lab.RPFilterStrict, []lab.Backend{vxlan, direct}},
		{lab.IPv4, lab.IPv4, 1, lab.RPFilterOff, []lab.Backend{hostGW, vxlan}},
		{lab.IPv6, lab.IPv6, 1, lab.RPFilterOff, []lab.Backend{vxlan, hostGW}},
		{lab.IPv4, lab.IPv6, 1, lab.RPFilterStrict, []lab.Backend{vxlan}},
		{lab.IPv6, lab.IPv4, 1, lab.RPFilterStrict, []lab.Backend{vxlan}},
	} {
		name := fmt.Sprintf("m-%s-%s", m.pods, m.underlay)
		t.Run(fmt.Sprintf("pods %s underlay %s subnets %d", m.pods, m.underlay, m.subnets),
			func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, name, lab.Options{
					Families: m.pods, Underlay: m.underlay, Subnets: m.subnets,
					Nodes:    m.subnets + 1,
					RPFilter: m.filter, Backend: m.backends[0],
				})
				for i, backend := range m.backends {
					w.part(string(backend), func(w *world) {
						if i > 0 {
							w.setBackend(backend)
						}
						w.backend(backend)
					})
				}
			})
	}
}

// setBackend changes the backend, and waits until the routes of all nodes are those of it.
func (w *world) setBackend(backend lab.Backend) {
	w.t.Helper()
	must(w.t, w.EditNetConf(func(conf map[string]any) {
		conf["Backend"] = map[string]any{"Type": string(backend)}
		if backend == lab.DirectRouting {
			conf["Backend"] = map[string]any{"Type": "vxlan", "DirectRouting": true}
		}
	}))
	w.awaitBackend(backend)
}

// awaitBackend waits until every node has the routes of a backend to every other.
func (w *world) awaitBackend(backend lab.Backend) {
	w.t.Helper()
	for _, node := range w.Nodes() {
		w.eventually(settleTime, "the routes of "+node.Name(), func() bool {
			routes := w.sh(node.Name(), "ip route show proto 84; ip -6 route show proto 84")
			for _, peer := range w.Nodes() {
				for _, cidr := range peer.PodCIDRs() {
					device := uplink
					if tunnelled(backend, node, peer, cidr.Addr()) {
						device = tunnel
					}
					isRoute := func(line string) bool {
						return strings.HasPrefix(line, cidr.String()+" via ") &&
							strings.Contains(line, " dev "+device+" ")
					}
					if peer != node && !slices.ContainsFunc(strings.Split(routes, "\n"), isRoute) {
						return false
					}
				}
			}
			return (w.linkMTU(node.Name(), tunnel) == 0) == (backend == lab.HostGW)
		})
	}
	w.awaitPodMTU(w.podMTU(backend))
}

// tunnelled says whether packets of addr's family go through the tunnel between two nodes.
func tunnelled(backend lab.Backend, from, to *lab.Node, addr netip.Addr) bool {
	switch backend {
	case lab.HostGW:
		return false
	case lab.DirectRouting:
		via := of(to.Addrs(), addr)
		return !via.IsValid() || !sameSubnet(of(from.Addrs(), addr), via)
	default:
		return true
	}
}

func sameSubnet(a, b netip.Addr) bool {
	const bits4, bits6 = 17, 64 // of the lab's underlay
	bits := bits4
	if a.Is6() {
		bits = bits6
	}
	return netip.PrefixFrom(a, bits).Contains(b)
}

// backend tests traffic on one node and between nodes.
func (w *world) backend(backend lab.Backend) {
	w.t.Helper()
	name := func(node, pod string) string {
		return fmt.Sprintf("default/%s-%s-%s", pod, backend, node)
	}
	var pods []string
	for _, node := range w.NodeNames() {
		w.create(node, name(node, "a"))
		pods = append(pods, name(node, "a"))
	}
	client, neighbour := name("node1", "a"), name("node1", "b")
	w.create("node1", neighbour)
	w.waitReady(append(pods, neighbour)...)
	mtu := w.podMTU(backend)
	w.talk(client, neighbour)
	w.carries(client, neighbour, mtu)
	for _, node := range w.Nodes()[1:] {
		server := name(node.Name(), "a")
		capture, err := w.Capture("node1", uplink, nil)
		must(w.t, err)
		w.talk(client, server)
		w.carries(client, server, mtu)
		w.carries(server, client, mtu)
		packets, err := capture.Stop()
		must(w.t, err)
		for _, addr := range w.addrs(server) {
			conversation := between(packets, of(w.addrs(client), addr), addr)
			w.looksRight(conversation, tunnelled(backend, w.Node("node1"), node, addr),
				w.Node("node1"), node, mtu)
		}
	}
	w.answers(backend)
}

// answers demands that every node that a tunnel leads to answers through it, with any ruleset and
// filters of the nodes.
func (w *world) answers(backend lab.Backend) {
	w.t.Helper()
	for _, node := range w.Nodes() {
		through := 0
		for _, peer := range w.Nodes() {
			leads := func(cidr netip.Prefix) bool {
				return tunnelled(backend, node, peer, cidr.Addr())
			}
			if peer != node && slices.ContainsFunc(peer.PodCIDRs(), leads) {
				through++
			}
		}
		w.awaitTunnel(node.Name(), through, 0, len(w.Nodes())-1-through)
	}
}

// podMTU is what pods get: what the tunnel leaves, also where some peers are reached without it.
func (w *world) podMTU(backend lab.Backend) int {
	switch {
	case backend == lab.HostGW:
		return underlayMTU
	case w.endpoint(w.Node("node1")).Is4():
		return underlayMTU - overhead4
	default:
		return underlayMTU - overhead6
	}
}

// endpoint is a node's end of the tunnel: its first address.
func (w *world) endpoint(node *lab.Node) netip.Addr { return node.Addrs()[0] }

// between picks the packets between two pods.
func between(packets []capture.Packet, a, b netip.Addr) (out []capture.Packet) {
	for _, p := range packets {
		src, dst := p.Innermost().Src.Addr(), p.Innermost().Dst.Addr()
		if src == a && dst == b || src == b && dst == a {
			out = append(out, p)
		}
	}
	return out
}

// looksRight judges the packets between pods of two nodes on the first one's cable: all in the
// tunnel, or none; of all protocols; and the longest exactly what the cable takes, in one piece.
func (w *world) looksRight(packets []capture.Packet, tunnelled bool, here, there *lab.Node,
	mtu int) {
	w.t.Helper()
	w.lookEncapsulated(packets, tunnelled, here, there)
	seen := map[uint8]int{}
	longest := map[bool]int{}
	for _, p := range packets {
		seen[p.Innermost().Protocol]++
		if p.Fragment || p.Innermost().Fragment {
			w.t.Errorf("%s is a fragment", p)
		}
		if p.Innermost().Protocol == unix.IPPROTO_UDP {
			longest[p.Outgoing] = max(longest[p.Outgoing], p.Length)
		}
	}
	icmp := seen[unix.IPPROTO_ICMP] + seen[unix.IPPROTO_ICMPV6]
	if seen[unix.IPPROTO_TCP] < 6 || seen[unix.IPPROTO_UDP] < 8 || icmp < 4 {
		w.t.Errorf("on the cable from %s to %s were %v packets by protocol, want TCP, UDP and ICMP",
			here.Name(), there.Name(), seen)
	}
	want := mtu
	if tunnelled {
		want = underlayMTU
	}
	if longest[true] != want || longest[false] != want {
		w.t.Errorf("the longest packets from and to %s have %d and %d bytes, want %d", here.Name(),
			longest[true], longest[false], want)
	}
}

// lookEncapsulated demands of packets on the cable of one of two nodes that all are in the tunnel
// between them, or none. It reports the first that isn't right.
func (w *world) lookEncapsulated(packets []capture.Packet, tunnelled bool, here, there *lab.Node) {
	w.t.Helper()
	for _, p := range packets {
		src, dst := w.endpoint(here), w.endpoint(there)
		if !p.Outgoing {
			src, dst = dst, src
		}
		inTunnel := p.VXLAN != nil && p.VXLAN.VNI == 1 && p.Dst.Port() == capture.VXLANPort &&
			p.Src.Addr() == src && p.Dst.Addr() == dst && p.Checksum == 0
		switch {
		case tunnelled && !inTunnel:
			w.t.Errorf("%s, checksum %#x: want it in the tunnel with VNI 1, from %s to port %d "+
				"of %s, without a checksum",
				p, p.Checksum, src, capture.VXLANPort, dst)
			return
		case !tunnelled && p.VXLAN != nil:
			w.t.Errorf("%s: want it outside the tunnel", p)
			return
		}
	}
}
