package overlay

import (
	"fmt"
	"net/netip"
)

// underlay is the family that the node's tunnel uses, and the node's address of it: the zero Addr if it has none.
func underlay(own Node, c Config) (Family, netip.Addr) {
	family := c.Underlay
	if family == AnyFamily {
		switch {
		case own.UnderlayIP.IsValid():
			family = familyOf(own.UnderlayIP)
		case len(own.Addresses) > 0:
			family = familyOf(own.Addresses[0])
		}
	}
	return family, own.address(family)
}

// findUnderlay finds the link with the node's underlay address. On a node that is a router, the address may be on a link that leads
// nowhere: then routes say by which links other nodes are reached, and nothing is bound to one of these.
func (b *builder) findUnderlay() error {
	b.family, b.plan.Local = underlay(b.own, b.config)
	if !b.plan.Local.IsValid() {
		return fmt.Errorf("node %s has no address on the underlay (%s)", b.own.Name, b.family)
	}
	if reason := checkEndpoint(b.plan.Local); reason != "" {
		return fmt.Errorf("node %s: %s", b.own.Name, reason)
	}
	link, found := b.linkOf(b.plan.Local)
	switch {
	case !found:
		return fmt.Errorf("no link has the underlay address %s of node %s", b.plan.Local, b.own.Name)
	case !link.Loopback:
		b.plan.Device = link.Name
		return b.findMTU(link)
	}
	b.ways = map[netip.Addr]bool{}
	var out []Link
	for _, l := range b.links {
		if l.Leads {
			out = append(out, l)
		}
		for _, to := range l.LeadsTo {
			b.ways[to] = true
		}
	}
	if len(out) == 0 {
		return fmt.Errorf("the underlay address %s of node %s is on %s, and no route leads from there to another node", b.plan.Local, b.own.Name, link.Name)
	}
	return b.findMTU(out...)
}

// leadsTo says whether packets to another node's underlay address have a way out.
func (b *builder) leadsTo(endpoint netip.Addr) bool { return b.ways == nil || b.ways[endpoint] }

// findMTU finds what pods can send by any of the links of the underlay.
func (b *builder) findMTU(uplinks ...Link) error {
	lowest := uplinks[0]
	for _, l := range uplinks {
		b.plan.Uplinks = append(b.plan.Uplinks, l.Name)
		if l.MTU < lowest.MTU {
			lowest = l
		}
	}
	mtu := lowest.MTU
	if b.config.MTU != 0 {
		mtu = min(mtu, b.config.MTU) // the kernel refuses more than the link takes
	}
	if b.config.Backend == VXLAN {
		mtu -= overhead(b.family)
	}
	needed := minMTU4
	if b.config.IPv6Network.IsValid() {
		needed = minMTU6
	}
	if mtu < needed {
		return fmt.Errorf("an MTU of %d on %s leaves %d for pods, who need %d", lowest.MTU, lowest.Name, mtu, needed)
	}
	b.plan.MTU = mtu
	return nil
}
