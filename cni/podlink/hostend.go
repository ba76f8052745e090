package podlink

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/cni"
)

// WiringOf is how an attachment's link should be; nodeAddrs are the addresses that the node uses
// towards its pods.
func WiringOf(a cni.Attachment, nodeAddrs []netip.Addr) Wiring {
	return Wiring{
		HostName: a.Interface, PodName: a.IfName, HostMAC: a.HostMAC(), PodMAC: a.PodMAC(), MTU: a.MTU,
		Alias: cni.PodLabel(a.PodNamespace, a.PodName), Addrs: a.Addresses, NodeAddrs: nodeAddrs,
		HasHostPort4: cni.HasHostPort4(a.HostPorts),
	}
}

// hostEnd is the one description of a pod's host end: what Wire makes, Differences compares and a
// Keeper restores. Now is the link as it is; isLocal tells whether the node has an address.
// Shaping isn't in it, which is the keeper's alone.
func (w Wiring) hostEnd(now podLink, isLocal func(netip.Addr) bool) hostState {
	link := hostLink{
		name: w.HostName, mac: macAddr(w.HostMAC), mtu: cmp.Or(w.MTU, now.mtu), up: true,
		// or any pod could fill the node's neighbour table, which all of its interfaces share
		noARP: true,
		alias: w.Alias,
	}
	s := hostState{links: []hostLink{link}}
	for _, setting := range hostEndSysctls(w.HostName, w.Addrs, w.HasHostPort4) {
		if now.conf(setting.family) != nil { // a kernel without IPv6 has none of that
			s.sysctls = append(s.sysctls, setting)
		}
	}
	if w.has6() {
		s.addresses = append(s.addresses, hostAddress{link: w.HostName, prefix: gatewayPrefix6})
	}
	for _, addr := range w.Addrs {
		s.neighbours = append(s.neighbours, hostNeighbour{w.HostName, addr, macAddr(w.PodMAC)})
		route := hostRoute{to: cni.SingleHost(addr), link: w.HostName, metric: defaultMetric(addr)}
		if node := w.nodeAddr(addr); node.IsValid() && isLocal(node) {
			route.src = node
		}
		s.routes = append(s.routes, route)
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

// defaultMetric is what the kernel takes for a route without one.
func defaultMetric(to netip.Addr) int {
	if to.Is4() {
		return 0
	}
	const ipv6Default = 1024
	return ipv6Default
}

// beforeTraffic is what must hold before the first packet, and afterwards the rest, which needs a
// link that is up.
func (s hostState) beforeTraffic() (first, afterwards hostState) {
	first = hostState{links: s.links, sysctls: s.sysctls}
	afterwards = s
	afterwards.links, afterwards.sysctls = nil, nil
	return first, afterwards
}

// add adds another state, of other links.
func (s *hostState) add(o hostState) {
	s.links = append(s.links, o.links...)
	s.sysctls = append(s.sysctls, o.sysctls...)
	s.shapers = append(s.shapers, o.shapers...)
	s.redirects = append(s.redirects, o.redirects...)
	s.addresses = append(s.addresses, o.addresses...)
	s.neighbours = append(s.neighbours, o.neighbours...)
	s.routes = append(s.routes, o.routes...)
}
