package podlink

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/link"
)

// newEnd is a host end that Wire makes. The calling thread is in the node's namespace.
type newEnd struct {
	kernel *link.Kernel
	rest   link.State // what is left to do once the pod's end is up too
}

// prepareHostEnd has what must hold before the first packet hold, and sets the link up.
func prepareHostEnd(host *link.Kernel, w Wiring) (newEnd, error) {
	now, err := host.LookAt(w.HostName)
	if err != nil {
		return newEnd{}, err
	}
	// Whether the node has an address, the kernel says when the route is added.
	first, rest := beforeTraffic(w.hostEnd(now, func(netip.Addr) bool { return true }))
	actual := append(now.Settings(link.Of[link.Sysctl](first)), hostLinkOf(now))
	if err := applyAll(host, link.Diff(first, actual, nil)); err != nil {
		return newEnd{}, err
	}
	// Some tools change the MAC of a new link. The pod's neighbours, and DEL, count on ours.
	if now, err = host.LookAt(w.HostName); err != nil {
		return newEnd{}, err
	}
	if want := link.MAC(w.HostMAC); now.MAC != want {
		return newEnd{},
			fmt.Errorf("somebody changed the MAC of %s from %s to %s", now.Name, want, now.MAC)
	}
	return newEnd{host, rest}, nil
}

// furnish adds the gateway's address, and neighbours and routes for the pod's addresses. Where this
// takes long, on a busy node, the agent's healing may have been there first.
func (e newEnd) furnish() error { return applyAll(e.kernel, link.Diff(e.rest, nil, nil)) }

// applyAll makes changes to a new end in order, up to the first that fails. Routes are added, not
// replaced.
func applyAll(k *link.Kernel, ops []link.Op) error {
	for _, op := range ops {
		var err error
		if route, isRoute := op.Next.(link.Route); isRoute {
			err = addRoute(k, route)
		} else {
			err = k.ApplyOne(op)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// addRoute adds the route to a pod's address. One that is there already, by another link, belongs
// to a pod that is alive, which must be an error.
func addRoute(k *link.Kernel, want link.Route) error {
	route, err := want.Netlink(k)
	if err != nil {
		return err
	}
	err = k.RouteAdd(route)
	if errors.Is(err, unix.EINVAL) && want.Src.IsValid() {
		// The Node object can name an address that the machine doesn't have.
		route.Src = nil
		err = k.RouteAdd(route)
	}
	if errors.Is(err, unix.EEXIST) && leadsTo(k, route.LinkIndex, want) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("adding the route to %s: %w", want.To.Addr(), err)
	}
	return nil
}

// leadsTo tells whether our route to a pod's address is by that link.
func leadsTo(k *link.Kernel, index int, want link.Route) bool {
	routes, err := k.Routes(func(r netlink.Route) bool {
		return r.LinkIndex == index && r.Protocol == RouteProtocol && link.Prefix(r.Dst) == want.To
	})
	return err == nil && len(routes) > 0
}
