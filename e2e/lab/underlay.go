package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	switchNS   = "switch"
	bridgeName = "switch0"
	uplinkName = "eth0" // of a node or the outside host, to the switch
)

// newSwitch makes the underlay: a bridge in a namespace of its own, with no way to anywhere else.
func newSwitch(lab string) (ns.NetNS, error) {
	space, err := newNamespace(nsName(lab, switchNS))
	if err != nil {
		return nil, err
	}
	err = space.Do(func(ns.NetNS) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridgeName
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("adding the switch: %w", err)
		}
		return netlink.LinkSetUp(bridge)
	})
	return space, err
}

// plugIn gives the host a link to the switch, with these addresses, and returns when it can be used.
func plugIn(underlay, host ns.NetNS, name string, addrs []netip.Addr) error {
	err := underlay.Do(func(ns.NetNS) error {
		bridge, err := netlinksafe.LinkByName(bridgeName)
		if err != nil {
			return fmt.Errorf("finding the switch: %w", err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		attrs.MasterIndex = bridge.Attrs().Index
		cable := &netlink.Veth{LinkAttrs: attrs, PeerName: uplinkName, PeerNamespace: netlink.NsFd(int(host.Fd()))}
		if err := netlink.LinkAdd(cable); err != nil {
			return fmt.Errorf("adding a cable to %s: %w", name, err)
		}
		return netlink.LinkSetUp(cable)
	})
	if err != nil {
		return err
	}
	return host.Do(func(ns.NetNS) error {
		uplink, err := netlinksafe.LinkByName(uplinkName)
		if err != nil {
			return fmt.Errorf("finding the uplink of %s: %w", name, err)
		}
		for _, addr := range addrs {
			address := &netlink.Addr{IPNet: ipNet(onUnderlay(addr))}
			if addr.Is6() {
				address.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(uplink, address); err != nil {
				return fmt.Errorf("adding address %s to %s: %w", addr, name, err)
			}
		}
		return netlink.LinkSetUp(uplink)
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
