package podlink

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newEnd is a host end that Wire makes. The calling thread is in the node's namespace.
type newEnd struct {
	kernel hostKernel
	wiring Wiring
	rest   hostState // what is left to do once the pod's end is up too
}

// prepareHostEnd has what must hold before the first packet hold, and sets the link up.
func (s space) prepareHostEnd(w Wiring) (newEnd, error) {
	link, err := linkHere(w.HostName)
	if err != nil {
		return newEnd{}, err
	}
	e := newEnd{wiring: w, kernel: hostKernel{
		space: s, sysctlDir: procSys, links: map[string]podLink{link.name: link}, isNew: true,
	}}
	// Whether the node has an address, the kernel says when the route is added.
	first, rest := w.hostEnd(link, func(netip.Addr) bool { return true }).beforeTraffic()
	e.rest = rest
	now := hostState{links: []hostLink{link.hostLink}, sysctls: link.settings(first.sysctls)}
	if err := e.kernel.applyAll(diffHost(first, now)); err != nil {
		return newEnd{}, err
	}
	// Some tools change the MAC of a new link. The pod's neighbours, and DEL, count on ours.
	if link, err = linkHere(w.HostName); err != nil {
		return newEnd{}, err
	}
	if want := macAddr(w.HostMAC); link.mac != want {
		return newEnd{}, fmt.Errorf("somebody changed the MAC of %s from %s to %s", link.name, want,
			link.mac)
	}
	return e, nil
}

// furnish adds the gateway's address, and neighbours and routes for the pod's addresses. Where
// this takes long, on a busy node, the agent's healing may have been there first.
func (e newEnd) furnish() error { return e.kernel.applyAll(diffHost(e.rest, hostState{})) }

// applyAll makes changes in order, up to the first that fails.
func (k *hostKernel) applyAll(ops []hostOp) error {
	for _, op := range ops {
		err := k.applyOne(op)
		if _, isRoute := op.next.(hostRoute); isRoute && err != nil {
			return err // which says that it is added, and not replaced as in the command
		}
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	return nil
}

// addRoute adds the route to a pod's address. One that is there already, by another link, belongs
// to a pod that is alive, which must be an error.
func (k *hostKernel) addRoute(want hostRoute, route *netlink.Route) error {
	err := k.RouteAdd(route)
	if errors.Is(err, unix.EINVAL) && want.src.IsValid() {
		// The Node object can name an address that the machine doesn't have.
		route.Src = nil
		err = k.RouteAdd(route)
	}
	if errors.Is(err, unix.EEXIST) && k.routeLeadsTo(route.LinkIndex, want.to) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("adding the route to %s: %w", want.to.Addr(), err)
	}
	return nil
}

// routeLeadsTo tells whether our route to a pod's address is by that link.
func (s space) routeLeadsTo(index int, dst netip.Prefix) bool {
	routes, err := s.ourRoutes()
	return err == nil && slices.ContainsFunc(routes, func(r netlink.Route) bool {
		return r.LinkIndex == index && r.Dst != nil && r.Dst.String() == dst.String()
	})
}
