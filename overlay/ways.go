package overlay

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addWays notes on the links how the kernel's routes lead from the node's underlay address to those of other nodes, where that address is
// on a link that leads nowhere itself, and has changes of these routes noticed. Links without an address are added if need be.
func (r *Reconciler) addWays(k *kernel, in inputs, links []Link) ([]Link, error) {
	own := slices.IndexFunc(in.nodes, func(n Node) bool { return n.Name == in.own })
	if own < 0 {
		return links, nil
	}
	family, local := underlay(in.nodes[own], in.nodes, in.config)
	b := builder{links: links}
	if at, found := b.linkOf(local); !found || !at.Loopback {
		r.endpoints.Store(nil)
		return links, nil
	}
	endpoints := []netip.Addr{}
	for i, n := range in.nodes {
		if a := n.address(family); i != own && a.IsValid() && checkEndpoint(a) == "" {
			endpoints = append(endpoints, a)
		}
	}
	slices.SortFunc(endpoints, netip.Addr.Compare)
	endpoints = slices.Compact(endpoints)
	r.endpoints.Store(&endpoints) // before looking: later changes are told of
	defaults, err := k.defaultLinks(netlinkFamily(local))
	if err != nil {
		return nil, err
	}
	for _, name := range defaults {
		links = k.leads(links, name, netip.Addr{})
	}
	for _, to := range endpoints {
		names, err := k.waysTo(local, to)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			links = k.leads(links, name, to)
		}
	}
	return links, nil
}

// leads notes that routes lead out by a link, and to where.
func (k *kernel) leads(links []Link, name string, to netip.Addr) []Link {
	link, found := k.links[name]
	if !found || isDevice(name) || link.Attrs().Flags&net.FlagLoopback != 0 {
		return links
	}
	i := slices.IndexFunc(links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		i = len(links)
		links = append(links, Link{Name: name, MTU: link.Attrs().MTU})
	}
	links[i].Leads = true
	if to.IsValid() {
		links[i].LeadsTo = append(links[i].LeadsTo, to)
	}
	return links
}

// waysTo is the links of the route from one address of the node to one elsewhere, all of them if it has several; none if there is no
// such route.
func (k *kernel) waysTo(local, to netip.Addr) ([]string, error) {
	routes, err := k.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{SrcAddr: local.AsSlice(), FIBMatch: true})
	for _, none := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, unix.EACCES} { // without one, or one of type unreachable and so on
		if errors.Is(err, none) {
			return nil, nil
		}
	}
	if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_UNICAST {
		return nil, err
	}
	return k.linksOf(routes[0]), nil
}

// defaultLinks is the links of a family's default routes, by name.
func (k *kernel) defaultLinks(family int) ([]string, error) {
	everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if family == netlink.FAMILY_V6 {
		everywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	routes, err := dumped("routes", func() ([]netlink.Route, error) {
		return k.Handle.Handle.RouteListFiltered(family, &netlink.Route{Dst: ipNet(everywhere)}, netlink.RT_FILTER_DST)
	})
	if err != nil {
		return nil, err
	}
	var links []string
	for _, r := range routes {
		links = append(links, k.linksOf(r)...)
	}
	return links, nil
}

// linksOf is the names of the links that a route leads out by.
func (k *kernel) linksOf(r netlink.Route) []string {
	links := []string{k.name(r.LinkIndex)}
	for _, hop := range r.MultiPath {
		links = append(links, k.name(hop.LinkIndex))
	}
	return links
}
