package podlink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/internal/names"
)

// RouteProtocol marks the node's routes to its pods: who put them there.
const RouteProtocol netlink.RouteProtocol = names.PodRoutes

// What a pod has as its gateways. The host end answers to the second one; the first needs no one,
// as the pod's neighbour for it is permanent.
var (
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")

	gatewayPrefix6 = netip.PrefixFrom(gateway6, 64) // as the host end has it
)

// preparePodEnd sets what must hold before the first packet, then sets the link up. The calling
// thread is in the pod's namespace.
func (s space) preparePodEnd(link netlink.Link, w Wiring) error {
	name := link.Attrs().Name
	settings := []linkSysctl{
		{family6, name, "accept_ra", 0},
		{family6, name, "accept_dad", 0},
	}
	if w.has6() {
		// Some runtimes turn IPv6 off in a new namespace.
		settings = append(settings, linkSysctl{family6, name, "disable_ipv6", 0})
	}
	for _, setting := range settings {
		if err := setting.write(); err != nil {
			return err
		}
	}
	lo, err := s.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	for _, link := range []netlink.Link{lo, link} { // the pod's own addresses are reached over lo
		if err := s.LinkSetUp(link); err != nil {
			return fmt.Errorf("setting the pod's %s up: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

// furnishPodEnd adds the pod's addresses, its gateways as neighbours, and its default routes.
func (s space) furnishPodEnd(link netlink.Link, w Wiring) error {
	for _, addr := range w.Addrs {
		if err := s.addAddr(link, cni.SingleHost(addr)); err != nil {
			return err
		}
		gateway := Gateway(addr)
		if err := s.addNeighbour(link, gateway, w.HostMAC); err != nil {
			return err
		}
		if err := s.addDefaultRoute(link, gateway); err != nil {
			return err
		}
	}
	return nil
}

// addDefaultRoute adds one that comes first, or, where the pod has one by another interface, after
// that.
func (s space) addDefaultRoute(link netlink.Link, gateway netip.Addr) error {
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       IPNet(Everywhere(gateway)),
		Gw:        gateway.AsSlice(),
		Flags:     int(netlink.FLAG_ONLINK),
	}
	err := s.RouteAdd(route)
	if errors.Is(err, unix.EEXIST) {
		const afterTheFirst = 1024 // the metric of an IPv6 route that names none
		route.Priority = afterTheFirst + link.Attrs().Index
		err = s.RouteAdd(route)
	}
	if err != nil {
		return fmt.Errorf("adding the pod's default route by way of %s: %w", gateway, err)
	}
	return nil
}

// addAddr adds an address that nobody else has, so that there is no need to find that out.
func (s space) addAddr(link netlink.Link, p netip.Prefix) error {
	address := &netlink.Addr{IPNet: IPNet(p)}
	if p.Addr().Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	if err := s.AddrAdd(link, address); err != nil {
		return fmt.Errorf("adding address %s to %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

// addNeighbour makes addr reachable at mac without asking, for good.
func (s space) addNeighbour(link netlink.Link, addr netip.Addr, mac net.HardwareAddr) error {
	family := netlink.FAMILY_V6
	if addr.Is4() {
		family = netlink.FAMILY_V4
	}
	err := s.NeighSet(&netlink.Neigh{
		LinkIndex:    link.Attrs().Index,
		Family:       family,
		State:        netlink.NUD_PERMANENT,
		IP:           addr.AsSlice(),
		HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("adding neighbour %s to %s: %w", addr, link.Attrs().Name, err)
	}
	return nil
}

// Gateway is the gateway in addr's family.
func Gateway(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return gateway4
	}
	return gateway6
}

// Everywhere is the prefix of a default route in addr's family.
func Everywhere(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// IPNet is a prefix for those libraries that know another kind.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
