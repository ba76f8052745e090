package cni

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// chainedResult is what the last plugin of the runtime's list said of a pod's link. A plugin behind ours may have changed the MTU of either end
// and the routes of the pod's: there it counts.
type chainedResult struct {
	hostMTU, podMTU int // bytes; 0: as the wiring says
	podRoutes       []endRoute
}

// checkEnds says what both ends of a pod's link lack of what wire made, a line each; the host's end is in the namespace of the calling thread.
// Its errors are about not being able to look.
func checkEnds(w wiring, chained chainedResult, podNS ns.NetNS) ([]string, error) {
	host, err := look(w.hostName)
	if err != nil {
		return nil, err
	}
	var pod end
	if err := podNS.Do(func(ns.NetNS) error { pod, err = look(w.podName); return err }); err != nil {
		return nil, fmt.Errorf("in the pod's network namespace: %w", err)
	}
	return slices.Concat(
		pod.differences("pod", wantedPodEnd(w, chained)),
		host.differences("host", wantedHostEnd(w, chained))), nil
}

// end is one end of a pod's link, as far as CHECK goes.
type end struct {
	name       string
	isThere    bool
	mac        string
	mtu        int // bytes; 0: any is good
	isUp       bool
	noARP      bool
	addresses  []netip.Prefix
	routes     []endRoute
	neighbours []endNeighbour // permanent ones
}

// endRoute is a route out of an end; the one without a gateway has the zero Addr.
type endRoute struct {
	to  netip.Prefix
	via netip.Addr
}

type endNeighbour struct {
	addr netip.Addr
	mac  string
}

func wantedPodEnd(w wiring, chained chainedResult) end {
	e := end{name: w.podName, isThere: true, mac: w.podMAC.String(), mtu: cmp.Or(chained.podMTU, w.mtu), isUp: true}
	for _, addr := range w.addrs {
		gateway := gatewayOf(addr)
		e.addresses = append(e.addresses, singleHost(addr))
		e.neighbours = append(e.neighbours, endNeighbour{gateway, w.hostMAC.String()})
		for _, route := range chained.podRoutes {
			if route.via == gateway {
				e.routes = append(e.routes, route)
			}
		}
	}
	return e
}

func wantedHostEnd(w wiring, chained chainedResult) end {
	e := end{
		name: w.hostName, isThere: true, mac: w.hostMAC.String(), mtu: cmp.Or(chained.hostMTU, w.mtu), isUp: true, noARP: true,
	}
	if w.has6() {
		e.addresses = append(e.addresses, netip.PrefixFrom(gateway6, 64))
	}
	for _, addr := range w.addrs {
		e.neighbours = append(e.neighbours, endNeighbour{addr, w.podMAC.String()})
		e.routes = append(e.routes, endRoute{to: singleHost(addr)})
	}
	return e
}

// look reads one end in the network namespace of the calling thread.
func look(name string) (end, error) {
	s, err := openSpace()
	if err != nil {
		return end{}, err
	}
	defer s.Close()
	link, err := s.LinkByName(name)
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) {
		return end{name: name}, nil
	}
	if err != nil {
		return end{}, fmt.Errorf("looking for link %s: %w", name, err)
	}
	of := link.Attrs()
	e := end{
		name: name, isThere: true, mac: of.HardwareAddr.String(), mtu: of.MTU,
		isUp: of.Flags&net.FlagUp != 0 && of.OperState == netlink.OperUp, noARP: of.RawFlags&unix.IFF_NOARP != 0,
	}
	addresses, err1 := s.AddrList(link, netlink.FAMILY_ALL)
	routes4, err2 := s.RouteList(link, netlink.FAMILY_V4)
	routes6, err3 := s.RouteList(link, netlink.FAMILY_V6)
	neighbours, err4 := s.NeighList(of.Index, netlink.FAMILY_ALL)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return end{}, fmt.Errorf("reading what %s has: %w", name, err)
	}
	for _, address := range addresses {
		if p, ok := endPrefix(address.IPNet); ok {
			e.addresses = append(e.addresses, p)
		}
	}
	for _, route := range slices.Concat(routes4, routes6) {
		if to, ok := endPrefix(route.Dst); ok {
			via, _ := netip.AddrFromSlice(route.Gw)
			e.routes = append(e.routes, endRoute{to, via.Unmap()})
		}
	}
	for _, n := range neighbours {
		if addr, ok := netip.AddrFromSlice(n.IP); ok && n.State&netlink.NUD_PERMANENT != 0 {
			e.neighbours = append(e.neighbours, endNeighbour{addr.Unmap(), n.HardwareAddr.String()})
		}
	}
	return e, nil
}

// differences says what an end lacks of what it should have, a line each. It may have more.
func (e end) differences(where string, want end) []string {
	var lines []string
	differs := func(format string, values ...any) {
		lines = append(lines, fmt.Sprintf("%s: %s %s", where, want.name, fmt.Sprintf(format, values...)))
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
	if want.noARP && !e.noARP {
		differs("has ARP on, want it off")
	}
	for _, address := range want.addresses {
		if !slices.Contains(e.addresses, address) {
			differs("lacks the address %s", address)
		}
	}
	for _, route := range want.routes {
		switch {
		case slices.Contains(e.routes, route):
		case route.via.IsValid():
			differs("lacks the route to %s via %s", route.to, route.via)
		default:
			differs("lacks the route to %s", route.to)
		}
	}
	for _, n := range want.neighbours {
		if !slices.Contains(e.neighbours, n) {
			differs("lacks the permanent neighbour %s with %s", n.addr, n.mac)
		}
	}
	return lines
}

// endPrefix is false for what is none.
func endPrefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	p := netip.PrefixFrom(addr.Unmap(), ones)
	return p, ok && p.IsValid()
}
