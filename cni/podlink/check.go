package podlink

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/link"
)

// Chained is what the last plugin of the runtime's list said of a pod's link. A plugin behind ours
// may have changed the MTU of either end and the routes of the pod's: there it counts.
type Chained struct {
	HostMTU, PodMTU int // bytes; 0: as the wiring says
	PodRoutes       []Route
}

// Differences says what both ends of a pod's link lack of what wire made, a line each; the host's
// end is in the namespace of the calling thread. Its errors are about not being able to look.
func Differences(w Wiring, chained Chained, podNS ns.NetNS) ([]string, error) {
	var pod end
	var err error
	err = podNS.Do(func(ns.NetNS) error { pod, err = readPodEnd(w.PodName); return err })
	if err != nil {
		return nil, fmt.Errorf("in the pod's network namespace: %w", err)
	}
	lines := pod.differences("pod", wantedPodEnd(w, chained))
	w.MTU = cmp.Or(chained.HostMTU, w.MTU)
	host, err := hostDifferences(w)
	return append(lines, host...), err
}

// end is the pod's end of its link, as far as CHECK goes.
type end struct {
	name       string
	isThere    bool
	mac        link.MAC
	mtu        int // bytes; 0: any is good
	isUp       bool
	addresses  []netip.Prefix
	routes     []Route
	neighbours []endNeighbour // permanent ones
}

// Route is a route out of an end; the one without a gateway has the zero Addr.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

type endNeighbour struct {
	addr netip.Addr
	mac  link.MAC
}

func wantedPodEnd(w Wiring, chained Chained) end {
	e := end{name: w.PodName, isThere: true, mac: link.MAC(w.PodMAC),
		mtu: cmp.Or(chained.PodMTU, w.MTU), isUp: true}
	for _, addr := range w.Addrs {
		gateway := Gateway(addr)
		e.addresses = append(e.addresses, cni.SingleHost(addr))
		e.neighbours = append(e.neighbours, endNeighbour{gateway, link.MAC(w.HostMAC)})
		for _, route := range chained.PodRoutes {
			if route.Via == gateway {
				e.routes = append(e.routes, route)
			}
		}
	}
	return e
}

// readPodEnd reads the pod's end in the network namespace of the calling thread.
func readPodEnd(name string) (end, error) {
	k, err := link.Open(link.ProcSys)
	if err != nil {
		return end{}, err
	}
	defer k.Close()
	found, err := k.LookAt(name)
	if errors.Is(err, link.ErrNoLink) {
		return end{name: name}, nil
	}
	if err != nil {
		return end{}, err
	}
	e := end{
		name: name, isThere: true, mac: found.MAC, mtu: found.MTU, isUp: found.Up && found.Carrier,
	}
	addresses, err1 := k.Addresses()
	routes, err2 := k.Routes(func(r netlink.Route) bool { return r.LinkIndex == found.Index })
	neighbours, err3 := k.Neighbours(func(on string) bool { return on == name })
	if err := errors.Join(err1, err2, err3); err != nil {
		return end{}, fmt.Errorf("reading what %s has: %w", name, err)
	}
	for _, address := range addresses {
		if address.LinkIndex == found.Index {
			e.addresses = append(e.addresses, link.Prefix(address.IPNet))
		}
	}
	for _, route := range routes {
		e.routes = append(e.routes, Route{link.Prefix(route.Dst), link.Addr(route.Gw)})
	}
	for _, n := range link.Of[link.Neighbour](neighbours) {
		e.neighbours = append(e.neighbours, endNeighbour{n.Addr, n.MAC})
	}
	return e, nil
}

// differences says what an end lacks of what it should have, a line each. It may have more.
func (e end) differences(where string, want end) []string {
	var lines []string
	differs := func(format string, values ...any) {
		lines = append(lines, fmt.Sprintf("%s: %s %s", where, want.name,
			fmt.Sprintf(format, values...)))
	}
	if !e.isThere {
		differs("is missing")
		return lines
	}
	if e.mac != want.mac {
		differs("has the MAC %s, want %s", e.mac, want.mac)
	}
	if want.mtu != 0 && e.mtu != want.mtu {
		differs("has the MTU %d, want %d", e.mtu, want.mtu)
	}
	if !e.isUp {
		differs("is not up")
	}
	for _, address := range want.addresses {
		if !slices.Contains(e.addresses, address) {
			differs("lacks the address %s", address)
		}
	}
	for _, route := range want.routes {
		switch {
		case slices.Contains(e.routes, route):
		case route.Via.IsValid():
			differs("lacks the route to %s via %s", route.To, route.Via)
		default:
			differs("lacks the route to %s", route.To)
		}
	}
	for _, n := range want.neighbours {
		if !slices.Contains(e.neighbours, n) {
			differs("lacks the permanent neighbour %s with %s", n.addr, n.mac)
		}
	}
	return lines
}
