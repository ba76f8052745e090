package link

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"
)

// Route is a route in the main table. One without a link makes its destination unreachable.
type Route struct {
	To        netip.Prefix
	Via       netip.Addr // the zero Addr: To is on the link itself
	Link      string
	Onlink    bool       // Via is on the link although no prefix of it says so
	Src       netip.Addr // what the node uses as its own address; the zero Addr: the kernel chooses
	Metric    int
	TOS       int                   // that packets must have; 0: any
	Protocol  netlink.RouteProtocol // who put it there
	Different string                // as in Address
}

// Kind and the following methods are an Item's.
func (r Route) Kind() Kind     { return KindRoute }
func (r Route) Device() string { return r.Link }
func (r Route) Remove() string {
	return fmt.Sprintf("ip route del %s proto %d", r.Key(), r.Protocol)
}
func (r Route) Key() string {
	return r.To.String() + When(r.TOS != 0, fmt.Sprintf(" tos %d", r.TOS)) +
		When(r.Metric != DefaultMetric(r.To.Addr()), fmt.Sprintf(" metric %d", r.Metric))
}

func (r Route) Add() string {
	if r.Link == "" {
		return fmt.Sprintf("ip route replace unreachable %s proto %d%s", r.Key(), r.Protocol,
			remark(r.Different))
	}
	return fmt.Sprintf("ip route replace %s%s dev %s%s proto %d%s%s%s", r.Key(),
		When(r.Via.IsValid(), " via "+r.Via.String()), r.Link, When(r.Onlink, " onlink"),
		r.Protocol,
		When(r.isOnLink4(), " scope link"), When(r.Src.IsValid(), " src "+r.Src.String()),
		remark(r.Different))
}

// isOnLink4 says whether the route has the scope that the kernel demands of an IPv4 one without a
// gateway.
func (r Route) isOnLink4() bool { return r.Link != "" && !r.Via.IsValid() && r.To.Addr().Is4() }

// DefaultMetric is what the kernel takes for a route to an address's family without one.
func DefaultMetric(to netip.Addr) int {
	if to.Is4() {
		return 0
	}
	const ipv6Default = 1024
	return ipv6Default
}

// Put puts the route in the place of any with its destination and metric, whoever put that there.
func (r Route) Put(k *Kernel, _ []Item) error {
	route, err := r.Netlink(k)
	if err != nil {
		return err
	}
	err = k.RouteReplace(route)
	if errors.Is(err, unix.EINVAL) && r.Via.Is6() && r.Onlink {
		return r.putByStep(k, route)
	}
	return err
}

// putByStep puts an IPv6 route that the kernel refuses because a route by another link leads to its
// gateway, even if that is the one to be replaced. While a route by the right link leads to the
// gateway, the kernel takes it. So there is no moment without a way to the destination.
func (r Route) putByStep(k *Kernel, route *netlink.Route) error {
	step := Route{
		To: Single(r.Via), Link: r.Link, Metric: r.Metric, Protocol: r.Protocol,
	}
	toGateway, err := step.Netlink(k)
	if err == nil {
		err = k.RouteAdd(toGateway)
	}
	if err != nil {
		return fmt.Errorf("leading to its gateway for a moment: %w", err)
	}
	return errors.Join(k.RouteReplace(route), step.Drop(k))
}

// Drop removes the route by what is its own: destination, TOS, metric and protocol.
func (r Route) Drop(k *Kernel) error {
	return k.RouteDel(&netlink.Route{
		Dst: netipx.PrefixIPNet(r.To), Tos: r.TOS, Protocol: r.Protocol, Priority: r.Metric,
		Table: unix.RT_TABLE_MAIN, Scope: netlink.SCOPE_NOWHERE, // any
	})
}

// Netlink is the route for the netlink library's functions.
func (r Route) Netlink(k *Kernel) (*netlink.Route, error) {
	route := &netlink.Route{
		Dst: netipx.PrefixIPNet(r.To), Priority: r.Metric, Tos: r.TOS, Protocol: r.Protocol,
		Table: unix.RT_TABLE_MAIN, Gw: r.Via.AsSlice(), Src: r.Src.AsSlice(),
	}
	if r.Link == "" {
		route.Type = unix.RTN_UNREACHABLE
		return route, nil
	}
	index, err := k.Index(r.Link)
	if err != nil {
		return nil, err
	}
	route.LinkIndex = index
	if r.Onlink {
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	if r.isOnLink4() {
		route.Scope = netlink.SCOPE_LINK
	}
	return route, nil
}

// Routes lists the main table's routes that are wanted.
func (k *Kernel) Routes(wanted func(netlink.Route) bool) ([]netlink.Route, error) {
	return Whole("routes", func() (all []netlink.Route, err error) {
		err = k.RouteListFilteredIter(netlink.FAMILY_ALL, &netlink.Route{}, 0,
			func(r netlink.Route) bool {
				if wanted(r) {
					all = append(all, r)
				}
				return true
			})
		return all, err
	})
}

// RouteOf is one of Routes as an Item. What leads elsewhere, or makes packets smaller, and isn't in
// an Item, makes it different; other metrics (initcwnd and so on) don't.
func (k *Kernel) RouteOf(r netlink.Route) Route {
	route := Route{
		To: Prefix(r.Dst), Via: Addr(r.Gw), Onlink: r.Flags&unix.RTNH_F_ONLINK != 0,
		Src: Addr(r.Src), Metric: r.Priority, TOS: r.Tos, Protocol: r.Protocol,
	}
	if r.Type == unix.RTN_UNREACHABLE { // for IPv6 the kernel names lo
		route.Different = oddOptions(r)
		return route
	}
	route.Link = k.Name(r.LinkIndex)
	var odd []string
	if r.Type != unix.RTN_UNICAST {
		odd = append(odd, fmt.Sprintf("type %d", r.Type))
	}
	if scope := netlink.SCOPE_LINK; route.isOnLink4() && r.Scope != scope {
		odd = append(odd, fmt.Sprintf("scope %d", r.Scope))
	}
	if more := oddOptions(r); more != "" {
		odd = append(odd, more)
	}
	route.Different = join(odd)
	return route
}

// oddOptions says what about a route none of ours has.
func oddOptions(r netlink.Route) string {
	var odd []string
	if len(r.MultiPath) > 0 {
		odd = append(odd, "nexthops")
	}
	if r.Via != nil {
		odd = append(odd, "a gateway of the other family")
	}
	if r.MTU != 0 {
		odd = append(odd, fmt.Sprintf("mtu %d", r.MTU))
	}
	if r.AdvMSS != 0 || r.Encap != nil {
		odd = append(odd, "options")
	}
	return join(odd)
}
