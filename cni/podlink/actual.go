package podlink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wholeDump repeats a listing that the kernel interrupts because something changed meanwhile: half
// of one must not pass for the whole.
func wholeDump[T any](what string, dump func() (T, error)) (T, error) {
	const attempts = 10
	for i := 1; ; i++ {
		all, err := dump()
		if err == nil {
			return all, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) || i == attempts {
			return all, fmt.Errorf("listing %s: %w", what, err)
		}
	}
}

// actualHost is what is there and ours to compare with the desired state: that of the host ends,
// and shaping that should be.
func (s space) actualHost(
	desired hostState, phases map[string]phase, links map[string]podLink, addresses []netlink.Addr, routes []netlink.Route,
) (hostState, error) {
	actual, err := s.actualHostEnds(desired, phases, links, addresses, routes)
	if err == nil && len(desired.shapers) > 0 {
		err = s.readShaping(&actual, desired, links)
	}
	return actual, err
}

// actualHostEnds is everything on links that are looked after, and routes of our protocol. What is
// on links that are fresh or foreign isn't in it.
func (s space) actualHostEnds(
	desired hostState, phases map[string]phase, links map[string]podLink, addresses []netlink.Addr, routes []netlink.Route,
) (hostState, error) {
	actual := hostState{links: linksOf(phases, links), routes: routesTo(phases, links, routes)}
	names := map[int]string{} // of links that are looked after
	for name, p := range phases {
		if p == settled {
			names[links[name].index] = name
		}
	}
	for _, want := range desired.sysctls {
		actual.sysctls = append(actual.sysctls, links[want.link].settings([]linkSysctl{want})...)
	}
	for _, a := range addresses {
		if name, ours := names[a.LinkIndex]; ours {
			actual.addresses = append(actual.addresses, hostAddressOf(name, a))
		}
	}
	var err error
	actual.neighbours, err = s.neighboursOn(names)
	return actual, err
}

func linksOf(phases map[string]phase, links map[string]podLink) []hostLink {
	var all []hostLink
	for name, link := range links {
		switch {
		case phases[name] == settled:
			all = append(all, link.hostLink)
		case isShapeName(name):
			all = append(all, hostLink{name: name, isIFB: link.isIFB, up: link.up})
		}
	}
	return all
}

func hostAddressOf(link string, a netlink.Addr) hostAddress {
	addr := hostAddress{link: link, prefix: netipPrefix(a.IPNet)}
	var odd []string
	if a.Flags&unix.IFA_F_PERMANENT == 0 {
		odd = append(odd, "temporary")
	}
	if a.Flags&unix.IFA_F_DADFAILED != 0 {
		odd = append(odd, "dadfailed")
	}
	addr.different = strings.Join(odd, " ")
	return addr
}

// neighboursOn is the permanent neighbours on the links with these indexes. The kernel makes others
// by itself, and forgets them.
func (s space) neighboursOn(names map[int]string) ([]hostNeighbour, error) {
	var ours []hostNeighbour
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := wholeDump("neighbours", func() ([]netlink.Neigh, error) {
			return s.NeighList(0, family)
		})
		if err != nil {
			return nil, err
		}
		for _, n := range all {
			if name, found := names[n.LinkIndex]; found && n.State&netlink.NUD_PERMANENT != 0 {
				var mac macAddr
				copy(mac[:], n.HardwareAddr)
				ours = append(ours, hostNeighbour{name, addrOf(n.IP), mac})
			}
		}
	}
	return ours, nil
}

// ourRoutes is the routes of our protocol in the main table. Links must be listed after them: a
// route whose link isn't there then is of no pod. The other way round it could be that of a pod
// that has come meanwhile.
func (s space) ourRoutes() ([]netlink.Route, error) {
	return wholeDump("routes", func() ([]netlink.Route, error) {
		return s.Handle.Handle.RouteListFiltered(netlink.FAMILY_ALL,
			&netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	})
}

// routesTo is our routes, but for those on links that aren't looked after.
func routesTo(
	phases map[string]phase, links map[string]podLink, routes []netlink.Route,
) []hostRoute {
	names := map[int]string{}
	for name, link := range links {
		names[link.index] = name
	}
	var ours []hostRoute
	for _, r := range routes {
		name := names[r.LinkIndex]
		if p, known := phases[name]; known && p != settled {
			continue
		}
		ours = append(ours, hostRouteOf(name, r))
	}
	return ours
}

func hostRouteOf(link string, r netlink.Route) hostRoute {
	route := hostRoute{link: link, src: addrOf(r.Src), metric: r.Priority, tos: r.Tos}
	if r.Dst != nil {
		route.to = netipPrefix(r.Dst)
	}
	var odd []string
	switch {
	case r.Type == unix.RTN_UNREACHABLE:
		route.link = "" // the kernel says lo for IPv6
	case r.Type != unix.RTN_UNICAST:
		odd = append(odd, fmt.Sprintf("type %d", r.Type))
	case link == "":
		odd = append(odd, fmt.Sprintf("dev if%d", r.LinkIndex))
	case route.to.Addr().Is4() && r.Scope != netlink.SCOPE_LINK:
		odd = append(odd, fmt.Sprintf("scope %d", r.Scope))
	}
	if r.Gw != nil || r.Via != nil || len(r.MultiPath) > 0 {
		odd = append(odd, "gateway")
	}
	if r.MTU != 0 || r.AdvMSS != 0 || r.Encap != nil {
		odd = append(odd, "options")
	}
	route.different = strings.Join(odd, " ")
	return route
}

// addrOf is the zero Addr for what is no address.
func addrOf(ip []byte) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

func netipPrefix(n *net.IPNet) netip.Prefix {
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}
