package overlay

import (
	"net/netip"
	"slices"
)

// ownAddresses is the addresses at which the node itself is: those that its Node names, if a link
// has them, and all of links that lead somewhere. What is on a link that leads nowhere is local as
// well, but may be there for others: kube-proxy in IPVS mode puts every Service's address on
// kube-ipvs0, and routers have virtual addresses on lo. So what such a link has is the node's only
// if its Node says so.
func ownAddresses(n Node, links []Link) []netip.Addr {
	var own, elsewhere []netip.Addr
	for _, l := range links {
		for _, p := range l.Prefixes {
			if l.Loopback {
				elsewhere = append(elsewhere, p.Addr())
			} else {
				own = append(own, p.Addr())
			}
		}
	}
	named := func(a netip.Addr) bool { return slices.Contains(n.Addresses, a) || a == n.UnderlayIP }
	own = slices.DeleteFunc(own, func(a netip.Addr) bool {
		return slices.Contains(elsewhere, a) && !named(a)
	})
	for _, a := range elsewhere {
		if named(a) {
			own = append(own, a)
		}
	}
	slices.SortFunc(own, netip.Addr.Compare)
	return slices.Compact(own)
}
