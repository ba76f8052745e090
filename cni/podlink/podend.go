package podlink

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/link"
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
func preparePodEnd(pod *link.Kernel, now link.Found, w Wiring) error {
	sysctls := podEndSysctls(now.Name, w.Addrs)
	if err := applyAll(pod,
		link.Diff(settingsOf(now, sysctls), now.Settings(sysctls), nil)); err != nil {
		return err
	}
	for _, name := range []string{"lo", now.Name} { // the pod's own addresses are reached over lo
		if _, err := pod.LookAt(name); err != nil {
			return err
		}
		end, err := pod.Netlink(name)
		if err != nil {
			return err
		}
		if err := pod.LinkSetUp(end); err != nil {
			return fmt.Errorf("setting the pod's %s up: %w", name, err)
		}
	}
	return nil
}

// furnishPodEnd adds the pod's addresses, its gateways as neighbours, and its default routes.
func furnishPodEnd(pod *link.Kernel, name string, w Wiring) error {
	for _, addr := range w.Addrs {
		gateway := Gateway(addr)
		ops := link.Diff(link.State{
			link.Address{Link: name, Prefix: cni.SingleHost(addr)},
			link.Neighbour{Link: name, Addr: gateway, MAC: link.MAC(w.HostMAC)},
		}, nil, nil)
		if err := applyAll(pod, ops); err != nil {
			return err
		}
		if err := addDefaultRoute(pod, name, gateway); err != nil {
			return err
		}
	}
	return nil
}

// addDefaultRoute adds one that comes first, or, where the pod has one by another interface, after
// that.
func addDefaultRoute(pod *link.Kernel, name string, gateway netip.Addr) error {
	index, err := pod.Index(name)
	if err != nil {
		return err
	}
	route := &netlink.Route{
		LinkIndex: index,
		Dst:       netipx.PrefixIPNet(link.Everywhere(gateway)),
		Gw:        gateway.AsSlice(),
		Flags:     int(netlink.FLAG_ONLINK),
	}
	err = pod.RouteAdd(route)
	if errors.Is(err, unix.EEXIST) {
		const afterTheFirst = 1024 // the metric of an IPv6 route that names none
		route.Priority = afterTheFirst + index
		err = pod.RouteAdd(route)
	}
	if err != nil {
		return fmt.Errorf("adding the pod's default route by way of %s: %w", gateway, err)
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
