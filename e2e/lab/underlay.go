package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/e2e/lab/namespace"
)

// The underlay is a switch for each subnet, in one namespace with no way to anywhere else, and a
// router between them.
const (
	switchNS    = "switch"
	routerNS    = "router"
	uplinkName  = "eth0" // of a node, or of the outside host to the first subnet
	uplink2Name = "eth1" // of the outside host to the second subnet
)

// bridgeName is the switch of a subnet.
func bridgeName(subnet int) string { return fmt.Sprintf("switch%d", subnet) }

// makeUnderlay makes the switches, and the router if there are two.
func (l *Lab) makeUnderlay() error {
	if err := namespace.New(namespace.Name(l.name, switchNS)); err != nil {
		return err
	}
	err := l.inSwitch(func() error {
		for subnet := range l.plan.subnets {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = bridgeName(subnet)
			bridge := &netlink.Bridge{LinkAttrs: attrs}
			if err := netlink.LinkAdd(bridge); err != nil {
				return fmt.Errorf("adding the switch %s: %w", attrs.Name, err)
			}
			if err := netlink.LinkSetUp(bridge); err != nil {
				return fmt.Errorf("starting the switch %s: %w", attrs.Name, err)
			}
		}
		if l.options.DropPodSources {
			return dropPodSources(l.plan.networks())
		}
		return nil
	})
	if err != nil || l.plan.subnets == 1 {
		return err
	}
	if err := namespace.New(namespace.Name(l.name, routerNS),
		namespace.Forwards(true)...); err != nil {
		return err
	}
	for subnet := range l.plan.subnets {
		router := cable{
			name: fmt.Sprintf("router%d", subnet), subnet: subnet,
			host: namespace.Name(l.name, routerNS),
			link: fmt.Sprintf("eth%d", subnet), addrs: l.plan.router(subnet),
		}
		if err := l.plugIn(router); err != nil {
			return err
		}
	}
	return nil
}

// dropPodSources has the switches of the current namespace drop what comes from these networks.
func dropPodSources(networks []netip.Prefix) error {
	rules := []string{"add table bridge lab",
		"add chain bridge lab forward { type filter hook forward priority 0; }"}
	for _, network := range networks {
		family := "ip"
		if network.Addr().Is6() {
			family = "ip6"
		}
		rules = append(rules,
			fmt.Sprintf("add rule bridge lab forward %s saddr %s counter drop", family, network))
	}
	out, err := exec.CommandContext(context.Background(), "nft", strings.Join(rules, "; ")).
		CombinedOutput()
	if err != nil {
		return fmt.Errorf("having the switch drop pods' sources: %w: %s", err,
			strings.TrimSpace(string(out)))
	}
	return nil
}

func (l *Lab) inSwitch(f func() error) error {
	return namespace.In(namespace.Name(l.name, switchNS), f)
}

// cable joins a host to the switch of a subnet.
type cable struct {
	name   string // of its end at the switch
	subnet int
	host   string           // namespace
	link   string           // name of its end at the host
	mac    net.HardwareAddr // of the host's end; nil: any
	addrs  []netip.Addr     // of the host
}

// plugIn makes a cable and returns when it can be used.
func (l *Lab) plugIn(c cable) error {
	host, err := ns.GetNS(namespace.Path(c.host))
	if err != nil {
		return fmt.Errorf("opening namespace %s: %w", c.host, err)
	}
	defer func() { _ = host.Close() }()
	err = l.inSwitch(func() error {
		bridge, err := netlinksafe.LinkByName(bridgeName(c.subnet))
		if err != nil {
			return fmt.Errorf("finding the switch: %w", err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex, attrs.MTU = c.name, bridge.Attrs().Index, l.options.MTU
		veth := &netlink.Veth{
			LinkAttrs: attrs, PeerName: c.link, PeerNamespace: netlink.NsFd(int(host.Fd())),
			PeerHardwareAddr: c.mac, PeerMTU: uint32(l.options.MTU),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("adding a cable to %s: %w", c.name, err)
		}
		return netlink.LinkSetUp(veth)
	})
	if err != nil {
		return err
	}
	return host.Do(func(ns.NetNS) error {
		uplink, err := netlinksafe.LinkByName(c.link)
		if err != nil {
			return fmt.Errorf("finding the uplink of %s: %w", c.name, err)
		}
		for _, addr := range c.addrs {
			if err := netlink.AddrAdd(uplink, underlayAddr(addr)); err != nil {
				return fmt.Errorf("adding address %s to %s: %w", addr, c.name, err)
			}
		}
		return netlink.LinkSetUp(uplink)
	})
}

// unplug removes a cable. One that isn't there is no error.
func (l *Lab) unplug(name string) error {
	return l.inSwitch(func() error {
		link, err := netlinksafe.LinkByName(name)
		if isNoLink(err) {
			return nil
		}
		if err == nil {
			err = netlink.LinkDel(link)
		}
		if err != nil {
			return fmt.Errorf("removing the cable to %s: %w", name, err)
		}
		return nil
	})
}

// underlayAddr is an address of an uplink, usable at once.
func underlayAddr(addr netip.Addr) *netlink.Addr {
	address := &netlink.Addr{IPNet: ipNet(onUnderlay(addr))}
	if addr.Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	return address
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
