package overlay

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/link"
)

// skipf notes why a peer, or a part of it, is left out.
func (b *builder) skipf(n Node, format string, args ...any) {
	b.plan.Skipped = append(b.plan.Skipped,
		Skipped{Node: n.Name, Reason: fmt.Sprintf(format, args...)})
}

// takePeer adds the way to a peer.
func (b *builder) takePeer(n Node) {
	cidrs := b.usable(n.PodCIDRs)
	if len(cidrs) == 0 {
		b.skipf(n, "it has no pod CIDR of a family that is on")
		return
	}
	endpoint := n.address(b.family)
	if !endpoint.IsValid() {
		b.skipf(n, "it has no %s address, which is what the underlay is", b.family)
		return
	}
	if reason := b.checkPeerAddress(endpoint); reason != "" {
		b.skipf(n, "%s", reason)
		return
	}
	if !b.leadsTo(endpoint) {
		b.skipf(n, "no route leads to its address %s", endpoint)
		return
	}
	mac := TunnelMAC(n.Name)
	if owner, taken := b.macs[mac]; taken {
		b.skipf(n, "its tunnel MAC %s is that of node %s: rename it", mac, owner)
		return
	}
	b.macs[mac] = n.Name
	b.takeEndpoints(n)

	peer := Peer{Name: n.Name, Endpoint: endpoint}
	tunnelled := false
	for _, cidr := range cidrs {
		if reason := b.checkPeerCIDR(cidr); reason != "" {
			b.skipf(n, "%s", reason)
			continue
		}
		b.cidrs.Add(cidr, n.Name)
		direct, reason := b.directRoute(n, cidr)
		switch {
		case reason == "":
			b.add(direct)
			peer.Direct = append(peer.Direct, cidr)
		case b.config.Backend == HostGW:
			b.skipf(n, "no way to %s: %s", cidr, reason)
			continue
		default:
			b.addTunnelRoute(cidr, mac)
			tunnelled = true
		}
		peer.PodCIDRs = append(peer.PodCIDRs, cidr)
	}
	if tunnelled {
		b.add(link.Forward{Link: b.config.Device(), MAC: mac, To: endpoint})
	}
	if len(peer.PodCIDRs) > 0 {
		b.plan.Peers = append(b.plan.Peers, peer)
	}
}

// addTunnelRoute adds the way to a CIDR by its node's tunnel address, which is the CIDR's network
// address.
func (b *builder) addTunnelRoute(cidr netip.Prefix, mac link.MAC) {
	route := b.route(cidr, cidr.Addr(), b.config.Device())
	route.Onlink = true
	b.add(link.Neighbour{Link: route.Link, Addr: cidr.Addr(), MAC: mac}, route)
}

func (b *builder) route(to netip.Prefix, via netip.Addr, by string) link.Route {
	return link.Route{
		To: to, Via: via, Link: by, Metric: link.DefaultMetric(to.Addr()), Protocol: RouteProtocol,
	}
}

// directRoute is the plain route to a peer's CIDR, or why there is none.
func (b *builder) directRoute(n Node, cidr netip.Prefix) (link.Route, string) {
	if b.config.Backend == VXLAN && !b.config.DirectRouting {
		return link.Route{}, "everything goes through the tunnel"
	}
	family := familyOf(cidr.Addr())
	local, remote := b.own.address(family), n.address(family)
	if !remote.IsValid() {
		return link.Route{}, fmt.Sprintf("the node has no %s address", family)
	}
	if reason := b.checkPeerAddress(remote); reason != "" {
		return link.Route{}, reason
	}
	at, found := b.linkOf(local)
	if !found {
		return link.Route{}, fmt.Sprintf("no link has an %s address of this node", family)
	}
	onLink := func(p netip.Prefix) bool { return p.Contains(remote) }
	if at.Loopback || !slices.ContainsFunc(at.Prefixes, onLink) {
		return link.Route{}, fmt.Sprintf("%s is on no subnet of %s", remote, at.Name)
	}
	return b.route(cidr, remote, at.Name), ""
}

// checkPeerAddress says why an address can't be that of a peer.
func (b *builder) checkPeerAddress(a netip.Addr) string {
	if reason := checkEndpoint(a); reason != "" {
		return reason
	}
	if _, own := b.linkOf(a); own || slices.Contains(b.own.Addresses, a) || a == b.own.UnderlayIP {
		return fmt.Sprintf("its address %s is this node's", a)
	}
	if owner, within := b.cidrs.Overlapping(link.Single(a)); within {
		return fmt.Sprintf("its address %s is a pod's: it is in the pod CIDR of node %s", a, owner)
	}
	return ""
}

// checkEndpoint says why no node can be at an address.
func checkEndpoint(a netip.Addr) string {
	if a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.IsLinkLocalUnicast() ||
		a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Sprintf("its address %s is no node's", a)
	}
	return ""
}

// checkPeerCIDR says why a CIDR can't be a peer's.
func (b *builder) checkPeerCIDR(cidr netip.Prefix) string {
	if network := b.config.network(familyOf(cidr.Addr())); !contains(network, cidr) {
		return fmt.Sprintf("its pod CIDR %s is outside the pod network %s", cidr, network)
	}
	if owner, overlaps := b.cidrs.Overlapping(cidr); overlaps {
		return fmt.Sprintf("its pod CIDR %s overlaps that of node %s", cidr, owner)
	}
	i, _ := slices.BinarySearchFunc(b.endpoints, cidr.Addr(), netip.Addr.Compare)
	if i < len(b.endpoints) && cidr.Contains(b.endpoints[i]) {
		return fmt.Sprintf("its pod CIDR %s contains a node's address %s", cidr, b.endpoints[i])
	}
	for _, l := range b.links {
		for _, p := range l.Prefixes {
			if cidr.Contains(p.Addr()) {
				return fmt.Sprintf("its pod CIDR %s contains this node's address %s", cidr,
					p.Addr())
			}
		}
	}
	return ""
}
