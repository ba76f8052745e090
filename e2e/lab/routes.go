package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/e2e/lab/namespace"
)

// makeOutside makes the host beyond the pod network. With two subnets it has a link to each, but
// addresses on the first alone: so it reaches pods by way of their nodes although the router, which
// would hide an overlay's faults, knows no pods.
func (l *Lab) makeOutside() error {
	space := namespace.Name(l.name, Outside)
	if err := namespace.New(space, RPFilterOff.sysctls()...); err != nil {
		return err
	}
	var addrs []netip.Addr
	for _, addr := range l.plan.outside() {
		if addr.Is4() {
			addrs = append(addrs, addr)
		} else {
			// of IPv6, the one added last is what connections come from
			addrs = slices.Insert(addrs, 0, addr)
		}
	}
	err := l.plugIn(cable{name: Outside, host: space, link: uplinkName, addrs: addrs})
	if err != nil || l.plan.subnets == 1 {
		return err
	}
	if err := l.plugIn(cable{name: Outside + "2", subnet: 1, host: space,
		link: uplink2Name}); err != nil {
		return err
	}
	for _, addr := range l.plan.host(1, 0) {
		if err := l.routeOutside(onUnderlay(addr).Masked(), netip.Addr{}, 1); err != nil {
			return err
		}
	}
	return nil
}

// routeOutside has the outside host reach to by way of a node of a subnet, or on its link, from the
// first of its addresses.
func (l *Lab) routeOutside(to netip.Prefix, via netip.Addr, subnet int) error {
	link := []string{uplinkName, uplink2Name}[subnet]
	source := sameFamily(l.plan.outside(), to.Addr())
	return namespace.In(namespace.Name(l.name, Outside), func() error {
		return replaceRoute(link, to, via, source)
	})
}

// routePods has the outside host, and without agents the other nodes too, reach a node's pods by
// way of the node.
func (l *Lab) routePods(node nodeState) error {
	for _, cidr := range node.PodCIDRs {
		via := sameFamily(node.Addrs, cidr.Addr())
		if !via.IsValid() {
			continue // only the overlay has a way there
		}
		if err := l.routeOutside(cidr, via, l.plan.subnetOf(node.Number)); err != nil {
			return fmt.Errorf("%s: %w", Outside, err)
		}
		if !l.options.NoAgent {
			continue
		}
		for _, other := range l.nodeStates() {
			if other.Name == node.Name {
				continue
			}
			err := l.Do(other.Name, func() error {
				return replaceRoute(uplinkName, cidr, via, netip.Addr{})
			})
			if err != nil {
				return fmt.Errorf("%s: %w", other.Name, err)
			}
		}
	}
	return nil
}

// unroutePods takes the routes to a node's pods away.
func (l *Lab) unroutePods(node nodeState) error {
	var errs []error
	remove := func() error {
		for _, cidr := range node.PodCIDRs {
			err := netlink.RouteDel(&netlink.Route{Dst: ipNet(cidr)})
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("removing the route to %s: %w", cidr, err)
			}
		}
		return nil
	}
	errs = append(errs, namespace.In(namespace.Name(l.name, Outside), remove))
	if l.options.NoAgent {
		for _, other := range l.nodeStates() {
			if other.Name != node.Name {
				errs = append(errs, l.Do(other.Name, remove))
			}
		}
	}
	return errors.Join(errs...)
}

// replaceRoute sets the route to a prefix in the current namespace. Without via it is on the link.
func replaceRoute(link string, to netip.Prefix, via, source netip.Addr) error {
	uplink, err := netlinksafe.LinkByName(link)
	if err != nil {
		return fmt.Errorf("finding the link %s: %w", link, err)
	}
	route := &netlink.Route{LinkIndex: uplink.Attrs().Index, Dst: ipNet(to), Gw: via.AsSlice(),
		Src: source.AsSlice()}
	if !via.IsValid() && to.Addr().Is4() {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("adding a route to %s: %w", to, err)
	}
	return nil
}

// isNoLink says whether an error is that there is no such link.
func isNoLink(err error) bool {
	_, missing := errors.AsType[netlink.LinkNotFoundError](err)
	return missing
}
