package testnet

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"

	"github.com/vishvananda/netlink"
)

const bridgeName = "cni0"

var bridgeGateways = []netip.Prefix{
	netip.MustParsePrefix("10.88.0.1/16"),
	netip.MustParsePrefix("fd88::1/64"),
}

// BridgedPod attaches a pod as the stock bridge plugin does: to the node's bridge cni0 (gateway
// 10.88.0.1 and fd88::1, in whose subnets addrs must be), in hairpin mode, with bridged packets
// passing the node's IPv4 and IPv6 rules (br_netfilter). Without br_netfilter the test is skipped.
func (n *Node) BridgedPod(name string, addrs ...netip.Addr) *Host {
	n.t.Helper()
	bridge := n.bridged()
	h, v, err := n.newHost(name, hashedName("veth", name, 8), addrs)
	if err == nil {
		err = n.wireBridged(h, v, bridge)
	}
	if err != nil {
		n.t.Fatalf("making bridged pod %s: %v", name, err)
	}
	return h
}

// bridged returns the node's bridge, made at the first call.
func (n *Node) bridged() netlink.Link {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.bridge != nil {
		return n.bridge
	}
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
		if out, err := exec.Command("modprobe", "br_netfilter").CombinedOutput(); err != nil {
			n.t.Skipf("needs br_netfilter: modprobe: %v %s", err, out)
		}
	}
	bridge, err := n.addBridge()
	if err != nil {
		n.t.Fatalf("making bridge %s: %v", bridgeName, err)
	}
	n.bridge = bridge
	return bridge
}

func (n *Node) addBridge() (netlink.Link, error) {
	err := n.Do(func() error {
		for _, key := range []string{"net.bridge.bridge-nf-call-iptables",
			"net.bridge.bridge-nf-call-ip6tables"} {
			if err := (sysctl{key, "1"}).write(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	attrs.HardwareAddr = hardwareAddr(bridgeName, "outside") // or it changes with its ports
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := n.space.nl.LinkAdd(bridge); err != nil {
		return nil, err
	}
	for _, gateway := range bridgeGateways {
		if err := n.space.addAddr(bridge, gateway); err != nil {
			return nil, err
		}
	}
	return bridge, n.space.nl.LinkSetUp(bridge)
}

func (n *Node) wireBridged(h *Host, v veth, bridge netlink.Link) error {
	if err := n.space.nl.LinkSetMaster(v.outside, bridge); err != nil {
		return fmt.Errorf("adding %s to %s: %w", h.iface, bridgeName, err)
	}
	if err := n.space.nl.LinkSetHairpin(v.outside, true); err != nil {
		return fmt.Errorf("setting hairpin mode on %s: %w", h.iface, err)
	}
	if err := v.up(n, h); err != nil {
		return err
	}
	for _, addr := range h.addrs {
		gateway := bridgeGateways[0]
		if addr.Is6() {
			gateway = bridgeGateways[1]
		}
		if !gateway.Contains(addr) {
			return fmt.Errorf("%s isn't in %s", addr, gateway.Masked())
		}
		if err := h.space.addAddr(v.inside, netip.PrefixFrom(addr, gateway.Bits())); err != nil {
			return err
		}
		if h.firstAddr(sameFamily(addr)) != addr {
			continue
		}
		if err := h.space.addRoute(v.inside, everywhere(addr), gateway.Addr(),
			netip.Addr{}); err != nil {
			return err
		}
	}
	return nil
}
