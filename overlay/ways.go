package overlay

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/link"
)

// noteEndpoints is where the node's underlay address is, and the other nodes' addresses, if routes
// say how to reach them: if that address is on a link that leads nowhere. It has changes of these
// routes noticed, so it comes before looking at them.
func (r *Reconciler) noteEndpoints(in inputs,
	links []Link) (local netip.Addr, endpoints []netip.Addr) {
	r.endpoints.Store(nil)
	own := slices.IndexFunc(in.nodes, func(n Node) bool { return n.Name == in.own })
	if own < 0 {
		return netip.Addr{}, nil
	}
	family, local := underlay(in.nodes[own], in.nodes, in.config)
	b := builder{links: links}
	if at, found := b.linkOf(local); !found || !at.Loopback {
		return netip.Addr{}, nil
	}
	for i, n := range in.nodes {
		if a := n.address(family); i != own && a.IsValid() && checkEndpoint(a) == "" {
			endpoints = append(endpoints, a)
		}
	}
	slices.SortFunc(endpoints, netip.Addr.Compare)
	endpoints = slices.Compact(endpoints)
	r.endpoints.Store(&endpoints)
	return local, endpoints
}

// addWays notes on the links how the kernel's routes lead from a local address to those of other
// nodes. Links without an address are added if need be.
func (s sight) addWays(links []Link, local netip.Addr, endpoints []netip.Addr) ([]Link, error) {
	if !local.IsValid() {
		return links, nil
	}
	for _, name := range s.defaultLinks(link.Family(local)) {
		links = s.leads(links, name, netip.Addr{})
	}
	for _, to := range endpoints {
		names, err := s.waysTo(local, to)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			links = s.leads(links, name, to)
		}
	}
	return links, nil
}

// leads notes that routes lead out by a link, and to where.
func (s sight) leads(links []Link, name string, to netip.Addr) []Link {
	found, isThere := s.kernel.Links()[name]
	if !isThere || isDevice(name) || found.Loopback {
		return links
	}
	i := slices.IndexFunc(links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		i = len(links)
		links = append(links, Link{Name: name, MTU: found.MTU})
	}
	links[i].Leads = true
	if to.IsValid() {
		links[i].LeadsTo = append(links[i].LeadsTo, to)
	}
	return links
}

// waysTo is the links of the route from one address of the node to one elsewhere, all of them if it
// has several; none if there is no such route.
func (s sight) waysTo(local, to netip.Addr) ([]string, error) {
	routes, err := s.kernel.RouteGetWithOptions(to.AsSlice(),
		&netlink.RouteGetOptions{SrcAddr: local.AsSlice(), FIBMatch: true})
	for _, none := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL,
		unix.EACCES} { // without one, or one of type unreachable and so on
		if errors.Is(err, none) {
			return nil, nil
		}
	}
	if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_UNICAST {
		return nil, err
	}
	return s.linksOf(routes[0]), nil
}

// defaultLinks is the links of a family's default routes, by name.
func (s sight) defaultLinks(family int) []string {
	var links []string
	for _, r := range s.routes {
		if isDefault(r) && r.Family == family {
			links = append(links, s.linksOf(r)...)
		}
	}
	return links
}

// linksOf is the names of the links that a route leads out by.
func (s sight) linksOf(r netlink.Route) []string {
	links := []string{s.kernel.Name(r.LinkIndex)}
	for _, hop := range r.MultiPath {
		links = append(links, s.kernel.Name(hop.LinkIndex))
	}
	return links
}
