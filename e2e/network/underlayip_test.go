package network

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/e2e/lab/capture"
)

// Nodes with two links use the one whose address an annotation names, and its MTU.
func TestUnderlayAnnotation(t *testing.T) {
	t.Parallel()
	const second, secondMTU = "eth9", 2000
	w := newWorld(t, "two-nics", lab.Options{})
	w.run("node1", "default/a")
	w.run("node2", "default/b")
	w.talk("default/a", "default/b")
	w.join("node1", "node2", second, secondMTU)
	addresses := map[string]netip.Addr{"node1": netip.MustParseAddr("172.31.0.1"),
		"node2": netip.MustParseAddr("172.31.0.2")}
	for node, addr := range addresses {
		w.sh(node, "ip addr add "+addr.String()+"/24 dev "+second)
	}

	w.onLink(uplink, second, w.NodeAddrs("node1")[0], w.NodeAddrs("node2")[0])
	for node, addr := range addresses {
		text := addr.String()
		w.annotate(node, "sluice.network/underlay-ip", &text)
	}
	w.awaitPodMTU(secondMTU - overhead4)
	w.onLink(second, uplink, addresses["node1"], addresses["node2"])
	w.run("node1", "default/a2")
	w.run("node2", "default/b2")
	w.talk("default/a2", "default/b2")
	w.carries("default/a2", "default/b2", secondMTU-overhead4)

	nonsense := "172.31.0.256"
	w.annotate("node2", "sluice.network/underlay-ip", &nonsense)
	t.Log(w.event("node2", "InvalidAnnotation", nonsense))
	for node := range addresses {
		w.annotate(node, "sluice.network/underlay-ip", nil)
	}
	w.awaitPodMTU(underlayMTU - overhead4)
	w.onLink(uplink, second, w.NodeAddrs("node1")[0], w.NodeAddrs("node2")[0])
}

// join connects two nodes by a cable of their own, with this name at both ends.
func (w *world) join(a, b, link string, mtu int) {
	w.t.Helper()
	path, err := w.NetNS(b)
	must(w.t, err)
	other, err := ns.GetNS(path)
	must(w.t, err)
	defer func() { must(w.t, other.Close()) }()
	must(w.t, w.Do(a, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = link, mtu
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: link, PeerMTU: uint32(mtu),
			PeerNamespace: netlink.NsFd(int(other.Fd())),
		})
	}))
	for _, node := range []string{a, b} {
		w.sh(node, "ip link set "+link+" up")
	}
}

// onLink demands that pods talk through a tunnel with these ends on one of node1's links, and not
// on the other.
func (w *world) onLink(link, otherLink string, local, remote netip.Addr) {
	w.t.Helper()
	w.eventually(settleTime, "both nodes to know each other's ends", func() bool {
		return w.mentions("node1", remote.String()) && w.mentions("node2", local.String())
	})
	inTunnel := func(p capture.Packet) bool { return p.VXLAN != nil }
	right, err := w.Capture("node1", link, inTunnel)
	must(w.t, err)
	wrong, err := w.Capture("node1", otherLink, inTunnel)
	must(w.t, err)
	w.talk("default/a", "default/b")
	packets, err := right.Stop()
	must(w.t, err)
	strays, err := wrong.Stop()
	must(w.t, err)
	const least = 20 // TCP, UDP and ICMP, of both families, both ways
	if len(packets) < least || len(strays) > 0 {
		w.t.Errorf("%d packets on %s and %d on %s, want all on the first, and %d at least",
			len(packets), link, len(strays), otherLink, least)
	}
	for _, p := range packets {
		src, dst := local, remote
		if !p.Outgoing {
			src, dst = dst, src
		}
		if p.Src.Addr() != src || p.Dst.Addr() != dst {
			w.t.Errorf("%s: want a tunnel between %s and %s", p, local, remote)
		}
	}
}
