package lab

import (
	"fmt"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
)

// routePodsBy adds plain routes to a node's pods by way of the node's underlay addresses. They stand in for an overlay.
func routePodsBy(host ns.NetNS, podCIDRs []netip.Prefix, node []netip.Addr) error {
	return host.Do(func(ns.NetNS) error {
		uplink, err := netlinksafe.LinkByName(uplinkName)
		if err != nil {
			return fmt.Errorf("finding the uplink: %w", err)
		}
		for _, cidr := range podCIDRs {
			for _, gateway := range node {
				if gateway.Is4() != cidr.Addr().Is4() {
					continue
				}
				route := &netlink.Route{LinkIndex: uplink.Attrs().Index, Dst: ipNet(cidr), Gw: gateway.AsSlice()}
				if err := netlink.RouteAdd(route); err != nil {
					return fmt.Errorf("adding a route to %s by way of %s: %w", cidr, gateway, err)
				}
			}
		}
		return nil
	})
}
