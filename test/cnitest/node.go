package cnitest

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/test/needroot"
)

// The node's own addresses.
var (
	Node4 = netip.MustParseAddr("192.0.2.1")
	Node6 = netip.MustParseAddr("2001:db8::1")
)

// Node is a network namespace that forwards, in which the plugin runs.
type Node struct {
	t     testing.TB
	NetNS ns.NetNS
}

// NewNode makes one, until the test ends.
func NewNode(t testing.TB) *Node {
	t.Helper()
	n := &Node{t: t, NetNS: NewNetNS(t)}
	n.InNode(func() error {
		for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding",
			"ipv6/conf/default/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0o600); err != nil {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		ip4 := netlink.NewIPNet(Node4.AsSlice())
		ip6 := netlink.NewIPNet(Node6.AsSlice())
		return errors.Join(
			netlink.LinkSetUp(lo),
			netlink.AddrAdd(lo, &netlink.Addr{IPNet: ip4}),
			netlink.AddrAdd(lo, &netlink.Addr{IPNet: ip6, Flags: unix.IFA_F_NODAD}))
	})
	return n
}

// NewNetNS makes a network namespace, until the test ends.
func NewNetNS(t testing.TB) ns.NetNS {
	t.Helper()
	needroot.Skip(t)
	netns, err := ns.TempNetNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns.Close() })
	return netns
}

// InNode runs f as the plugin runs on a node.
func (n *Node) InNode(f func() error) {
	n.t.Helper()
	if err := n.NetNS.Do(func(ns.NetNS) error { return f() }); err != nil {
		n.t.Fatalf("on the node: %v", err)
	}
}

// HostLinks are the names of the pods' links on the node.
func (n *Node) HostLinks() []string {
	n.t.Helper()
	return LinkNames(n.t, n.NetNS)
}

// ExpectNoLinks wants no pod's link on the node.
func (n *Node) ExpectNoLinks() {
	n.t.Helper()
	if names := n.HostLinks(); len(names) > 0 {
		n.t.Errorf("the node has %v", names)
	}
}
