package podlink

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/link"
)

// WiringOf is how an attachment's link should be; nodeAddrs are the addresses that the node uses
// towards its pods.
func WiringOf(a cni.Attachment, nodeAddrs []netip.Addr) Wiring {
	return Wiring{
		HostName: a.Interface, PodName: a.IfName, HostMAC: a.HostMAC(), PodMAC: a.PodMAC(),
		MTU:   a.MTU,
		Alias: cni.PodLabel(a.PodNamespace, a.PodName), Addrs: a.Addresses, NodeAddrs: nodeAddrs,
		HasHostPort4: cni.HasHostPort4(a.HostPorts),
	}
}

// hostEnd is the one description of a pod's host end: what Wire makes, Differences compares and a
// Keeper restores. Now is the link as it is; isLocal tells whether the node has an address. Shaping
// isn't in it, which is the keeper's alone.
func (w Wiring) hostEnd(now link.Found, isLocal func(netip.Addr) bool) link.State {
	s := link.State{hostLink{
		name: w.HostName, mac: link.MAC(w.HostMAC), mtu: cmp.Or(w.MTU, now.MTU), up: true,
		// or any pod could fill the node's neighbour table, which all of its interfaces share
		noARP: true,
		alias: w.Alias,
	}}
	s = append(s, settingsOf(now, hostEndSysctls(w.HostName, w.Addrs, w.HasHostPort4))...)
	if w.has6() {
		s = append(s, link.Address{Link: w.HostName, Prefix: gatewayPrefix6})
	}
	for _, addr := range w.Addrs {
		route := link.Route{
			To: cni.SingleHost(addr), Link: w.HostName, Metric: link.DefaultMetric(addr),
			Protocol: RouteProtocol,
		}
		if node := w.nodeAddr(addr); node.IsValid() && isLocal(node) {
			route.Src = node
		}
		s = append(s, link.Neighbour{Link: w.HostName, Addr: addr, MAC: link.MAC(w.PodMAC)}, route)
	}
	return s
}

// nodeAddr is what the node uses towards a pod's address, or the zero Addr.
func (w Wiring) nodeAddr(towards netip.Addr) netip.Addr {
	i := slices.IndexFunc(w.NodeAddrs, func(addr netip.Addr) bool {
		return addr.Is4() == towards.Is4()
	})
	if i < 0 {
		return netip.Addr{}
	}
	return w.NodeAddrs[i]
}

// beforeTraffic is what must hold before the first packet, and afterwards the rest, which needs a
// link that is up.
func beforeTraffic(s link.State) (first, afterwards link.State) {
	for _, item := range s {
		if item.Kind() <= link.KindLink {
			first = append(first, item)
		} else {
			afterwards = append(afterwards, item)
		}
	}
	return first, afterwards
}
