package overlay

import (
	"fmt"
	"net/netip"
)

// underlay is the family that the node's tunnel uses, and the node's address of it: the zero Addr
// if it has none. All is among the nodes.
//
// A tunnel has one family, and its ends must have the same. So unless it is configured, all nodes
// derive it from the same Nodes. Without a tunnel there is nothing to agree on: each node goes by
// its own order.
func underlay(own Node, all []Node, c Config) (Family, netip.Addr) {
	family := c.Underlay
	switch {
	case family != AnyFamily:
	case c.Backend == HostGW:
		family = own.firstFamily()
	default:
		family = familyOfTunnels(all)
	}
	return family, own.address(family)
}

// familyOfTunnels is the family that at least half of the nodes have an address of, those without
// any left out. If that is true of both, it is the one that the most senior node has first. So no
// newcomer changes how others are reached, and no single node, however senior, takes the others to
// a family that they don't have.
func familyOfTunnels(nodes []Node) Family {
	var senior *Node
	has, total := map[Family]int{}, 0
	for i := range nodes {
		n := &nodes[i]
		if n.firstFamily() == AnyFamily {
			continue
		}
		total++
		for _, f := range []Family{IPv4, IPv6} {
			if a := n.address(f); a.IsValid() && checkEndpoint(a) == "" {
				has[f]++
			}
		}
		if senior == nil || bySeniority(*n, *senior) < 0 {
			senior = n
		}
	}
	if senior == nil {
		return AnyFamily
	}
	first := senior.firstFamily()
	if 2*has[first] >= total {
		return first
	}
	return first.other()
}

// firstFamily is the family of the node's first address, of those that can be a node's; AnyFamily
// if there is none.
func (n Node) firstFamily() Family {
	for _, a := range append([]netip.Addr{n.UnderlayIP}, n.Addresses...) {
		if a.IsValid() && checkEndpoint(a) == "" {
			return familyOf(a)
		}
	}
	return AnyFamily
}

func (f Family) other() Family {
	if f == IPv4 {
		return IPv6
	}
	return IPv4
}

// findUnderlay finds the link with the node's underlay address. On a node that is a router, the
// address may be on a link that leads nowhere: then routes say by which links other nodes are
// reached, and nothing is bound to one of these.
func (b *builder) findUnderlay(all []Node) error {
	b.family, b.plan.Local = underlay(b.own, all, b.config)
	if !b.plan.Local.IsValid() {
		return fmt.Errorf("node %s has no address on the underlay (%s)", b.own.Name, b.family)
	}
	if reason := checkEndpoint(b.plan.Local); reason != "" {
		return fmt.Errorf("node %s: %s", b.own.Name, reason)
	}
	link, found := b.linkOf(b.plan.Local)
	switch {
	case !found:
		return fmt.Errorf("no link has the underlay address %s of node %s", b.plan.Local,
			b.own.Name)
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
		return fmt.Errorf("the underlay address %s of node %s is on %s, and no route leads from "+
			"there to another node", b.plan.Local, b.own.Name, link.Name)
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
		return fmt.Errorf("an MTU of %d on %s leaves %d for pods, who need %d", lowest.MTU,
			lowest.Name, mtu, needed)
	}
	b.plan.MTU = mtu
	return nil
}
