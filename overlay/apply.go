package overlay

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// apply makes changes in order. After a failure the rest about the same peer is left out, so that no route leads where nothing is
// known about; everything else goes on. The errors are joined. Removing what isn't there is no error, and neither is adding what
// is there.
func (k *kernel) apply(ops []Op) error {
	var errs []error
	failed := map[string]bool{}
	for _, op := range ops {
		if op.peer != "" && failed[op.peer] {
			continue
		}
		if err := k.applyOne(op); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", op, err))
			failed[op.peer] = true
		}
	}
	const enough = 5 // to see what is wrong
	if more := len(errs) - enough; more > 0 {
		errs = append(errs[:enough], fmt.Errorf("and %d more failed", more))
	}
	return errors.Join(errs...)
}

func (k *kernel) applyOne(op Op) error {
	switch c := op.what.(type) {
	case change[Tunnel]:
		if c.to != nil {
			return k.addTunnel(c.from, *c.to)
		}
		return removeAll(c.from, k.removeTunnel)
	case change[Address]:
		if c.to != nil {
			return k.addAddress(*c.to)
		}
		return removeAll(c.from, k.removeAddress)
	case change[Neighbour]:
		if c.to != nil {
			return k.addNeighbour(*c.to)
		}
		return removeAll(c.from, k.removeNeighbour)
	case change[Forward]:
		// Replacing an entry changes its first destination only.
		err := removeAll(c.from, k.removeForward)
		if c.to != nil && err == nil {
			err = k.addForward(*c.to)
		}
		return err
	case change[Route]:
		if c.to != nil {
			return k.changeRoute(c.from, *c.to)
		}
		return removeAll(c.from, k.removeRoute)
	default:
		return fmt.Errorf("no such kind of change: %T", op.what)
	}
}

func removeAll[T item](items []T, remove func(T) error) error {
	for _, i := range items {
		if err := remove(i); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

func (k *kernel) addAddress(a Address) error {
	link, found := k.links[a.Device]
	if !found {
		return fmt.Errorf("there is no link %s", a.Device)
	}
	address := &netlink.Addr{IPNet: ipNet(a.Prefix)}
	if a.Prefix.Addr().Is6() {
		address.Flags = unix.IFA_F_NODAD // there is nobody to ask
	}
	return k.AddrReplace(link, address)
}

func (k *kernel) removeAddress(a Address) error {
	link, found := k.links[a.Device]
	if !found {
		return nil
	}
	return k.AddrDel(link, &netlink.Addr{IPNet: ipNet(a.Prefix)})
}

// changeRoute puts a route in the place of any with its destination and metric.
func (k *kernel) changeRoute(old []Route, want Route) error {
	if len(old) > 1 {
		if err := removeAll(old, k.removeRoute); err != nil {
			return err
		}
	}
	route, err := k.netlinkRoute(want)
	if err != nil {
		return err
	}
	err = k.RouteReplace(route)
	if errors.Is(err, unix.EINVAL) && want.To.Addr().Is6() {
		// The kernel doesn't take an IPv6 gateway to which a route by another link leads, even if that is the route to be replaced.
		if err := k.removeRoutesTo(want); err != nil {
			return err
		}
		err = k.RouteReplace(route)
	}
	return err
}

// removeRoutesTo removes what is in the way of a route, whoever put it there.
func (k *kernel) removeRoutesTo(want Route) error {
	inTheWay := &netlink.Route{Dst: ipNet(want.To), Priority: want.Metric, Table: unix.RT_TABLE_MAIN}
	const most = 16
	for range most {
		if err := k.RouteDel(inTheWay); gone(err) {
			return nil
		} else if err != nil {
			return fmt.Errorf("removing the route in its place: %w", err)
		}
	}
	return nil
}

func (k *kernel) netlinkRoute(r Route) (*netlink.Route, error) {
	route := &netlink.Route{Dst: ipNet(r.To), Protocol: RouteProtocol, Priority: r.Metric, Table: unix.RT_TABLE_MAIN}
	if !r.Via.IsValid() {
		route.Type = unix.RTN_UNREACHABLE
		return route, nil
	}
	index, err := k.index(r.Device)
	if err != nil {
		return nil, err
	}
	route.Gw, route.LinkIndex = r.Via.AsSlice(), index
	if r.Onlink {
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	return route, nil
}

// removeRoute removes a route by what is its own: destination, TOS, metric and protocol.
func (k *kernel) removeRoute(r Route) error {
	return k.RouteDel(&netlink.Route{Dst: ipNet(r.To), Tos: r.TOS, Protocol: RouteProtocol, Priority: r.Metric, Table: unix.RT_TABLE_MAIN})
}
