package testnet

import "net/netip"

// The links to outside hosts use the ranges set aside for benchmarks (RFC 2544, RFC 5180), which
// nothing else in a test needs.
var (
	outsideLinks4 = netip.MustParseAddr("198.18.0.0")
	outsideLinks6 = netip.MustParseAddr("2001:2::")
)

// Outside attaches a host beyond the pod network by a link of its own, as an uplink is: a
// point-to-point subnet out of 198.18.0.0/24 and 2001:2::/64, resolved by ARP and neighbour
// discovery. The node routes addrs to it, and it routes everything to the node, from its first
// address. The veth's name in the node doesn't begin as a pod's does.
func (n *Node) Outside(name string, addrs ...netip.Addr) *Host {
	n.t.Helper()
	h, v, err := n.newHost(name, hashedName("ext", name, 8), addrs)
	if err == nil {
		err = n.wireOutside(h, v)
	}
	if err != nil {
		n.t.Fatalf("making outside host %s: %v", name, err)
	}
	return h
}

func (n *Node) wireOutside(h *Host, v veth) error {
	if err := v.up(n, h); err != nil {
		return err
	}
	n.mu.Lock()
	link := n.links
	n.links++
	n.mu.Unlock()
	for _, base := range []netip.Addr{outsideLinks4, outsideLinks6} {
		nodeEnd := lastByte(base, link*2)
		hostEnd := nodeEnd.Next()
		bits := nodeEnd.BitLen() - 1
		if err := n.space.addAddr(v.outside, netip.PrefixFrom(nodeEnd, bits)); err != nil {
			return err
		}
		if err := h.space.addAddr(v.inside, singleHost(hostEnd)); err != nil {
			return err
		}
		if err := n.routeOutside(h, v, nodeEnd, hostEnd); err != nil {
			return err
		}
	}
	return nil
}

// routeOutside makes the addresses of h of one family, that of the link's ends, reachable.
func (n *Node) routeOutside(h *Host, v veth, nodeEnd, hostEnd netip.Addr) error {
	for _, addr := range h.addrs {
		if addr.Is4() != nodeEnd.Is4() {
			continue
		}
		if err := h.space.addAddr(v.inside, singleHost(addr)); err != nil {
			return err
		}
		if err := n.space.addRoute(v.outside, singleHost(addr), hostEnd, netip.Addr{}); err != nil {
			return err
		}
	}
	source := h.firstAddr(sameFamily(nodeEnd))
	// Also to the node's end: SCTP answers from the route's source, wherever it was asked.
	err := h.space.addRoute(v.inside, singleHost(nodeEnd), netip.Addr{}, source)
	if err != nil {
		return err
	}
	return h.space.addRoute(v.inside, everywhere(nodeEnd), nodeEnd, source)
}

// lastByte is base with its last byte replaced.
func lastByte(base netip.Addr, b byte) netip.Addr {
	raw := base.AsSlice()
	raw[len(raw)-1] = b
	addr, _ := netip.AddrFromSlice(raw)
	return addr
}
