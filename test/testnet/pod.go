package testnet

import (
	"fmt"
	"net/netip"

	"github.com/sluice-net/sluice/internal/names"
)

var (
	podGateway4 = netip.MustParseAddr("169.254.1.1")
	podGateway6 = netip.MustParseAddr("fe80::1")
)

// InterfaceName returns the name of the veth that Pod makes for a pod of this name: names.PodLink
// and 11 hex digits.
func InterfaceName(pod string) string { return hashedName(names.PodLink, pod, 11) }

// Pod attaches a pod by a routed veth: the pod has its addresses alone (/32, /128) and default
// routes by way of 169.254.1.1 and fe80::1; the node has a route to each. Neighbours are permanent
// on both sides and ARP is off on the node's end, so nothing is resolved on the link in either
// family. The MACs are fixed by the name.
func (n *Node) Pod(name string, addrs ...netip.Addr) *Host {
	n.t.Helper()
	h, v, err := n.newHost(name, InterfaceName(name), addrs)
	if err == nil {
		err = wirePod(h, v)
	}
	if err != nil {
		n.t.Fatalf("making pod %s: %v", name, err)
	}
	return h
}

func wirePod(h *Host, v veth) error {
	node, pod := h.node.space, h.space
	if err := node.nl.LinkSetARPOff(v.outside); err != nil {
		return fmt.Errorf("turning ARP off on %s: %w", h.iface, err)
	}
	if err := v.up(h.node, h); err != nil {
		return err
	}
	if err := node.addAddr(v.outside, netip.PrefixFrom(podGateway6, 64)); err != nil {
		return err
	}
	outsideMAC, insideMAC := hardwareAddr(h.iface, "outside"), hardwareAddr(h.iface, "inside")
	for _, addr := range h.addrs {
		gateway := podGateway4
		if addr.Is6() {
			gateway = podGateway6
		}
		if err := pod.addAddr(v.inside, singleHost(addr)); err != nil {
			return err
		}
		if err := pod.addNeighbour(v.inside, gateway, outsideMAC); err != nil {
			return err
		}
		if h.firstAddr(sameFamily(addr)) == addr {
			if err := pod.addRoute(v.inside, everywhere(addr), gateway, netip.Addr{}); err != nil {
				return err
			}
		}
		if err := node.addNeighbour(v.outside, addr, insideMAC); err != nil {
			return err
		}
		if err := node.addRoute(v.outside, singleHost(addr), netip.Addr{},
			netip.Addr{}); err != nil {
			return err
		}
	}
	return nil
}

func sameFamily(as netip.Addr) func(netip.Addr) bool {
	return func(a netip.Addr) bool { return a.Is4() == as.Is4() }
}
