package testnet

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"
)

// insideName is the name of a veth's end inside the host's namespace.
const insideName = "eth0"

// veth is both ends of the pair that joins a host to its node.
type veth struct {
	outside, inside netlink.Link // in the node's namespace, in the host's
}

// newHost makes the namespace of a host and its veth. Both ends are down and bare.
func (n *Node) newHost(name, iface string, addrs []netip.Addr) (*Host, veth, error) {
	space, err := newNamespace()
	if err != nil {
		return nil, veth{}, err
	}
	h := &Host{t: n.t, node: n, name: name, iface: iface, space: space, addrs: addrs}
	v, err := n.addVeth(h)
	if err != nil {
		space.close()
		return nil, veth{}, err
	}
	n.attach(h)
	return h, v, nil
}

func (n *Node) addVeth(h *Host) (veth, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = h.iface
	attrs.HardwareAddr = hardwareAddr(h.iface, "outside")
	pair := &netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         insideName,
		PeerHardwareAddr: hardwareAddr(h.iface, "inside"),
		PeerNamespace:    netlink.NsFd(h.NSFd()),
	}
	if err := n.space.nl.LinkAdd(pair); err != nil {
		return veth{}, fmt.Errorf("adding veth %s: %w", h.iface, err)
	}
	inside, err := h.space.nl.LinkByName(insideName)
	if err != nil {
		return veth{}, fmt.Errorf("finding the other end of veth %s: %w", h.iface, err)
	}
	return veth{outside: pair, inside: inside}, nil
}

// up sets both ends up and returns when they carry packets. A link whose carrier has just come
// drops packets until the kernel has dealt with that, for which it can take its time; asking for
// the link's state makes it do so now.
func (v veth) up(n *Node, h *Host) error {
	ends := []struct {
		space *namespace
		link  netlink.Link
	}{{h.space, v.inside}, {n.space, v.outside}}
	for _, end := range ends {
		if err := end.space.nl.LinkSetUp(end.link); err != nil {
			return fmt.Errorf("setting %s of %s up: %w", end.link.Attrs().Name, h.name, err)
		}
	}
	for _, end := range ends {
		if err := end.space.awaitUp(end.link); err != nil {
			return err
		}
	}
	return nil
}

func (s *namespace) awaitUp(link netlink.Link) error {
	err := await(func() (bool, error) {
		now, err := s.nl.LinkByIndex(link.Attrs().Index)
		return err == nil && now.Attrs().OperState == netlink.OperUp, err
	})
	if err != nil {
		return fmt.Errorf("waiting for %s to be up: %w", link.Attrs().Name, err)
	}
	return nil
}

// await asks every millisecond until the answer is yes or an error.
func await(done func() (bool, error)) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if ok, err := done(); ok || err != nil {
			return err
		}
	}
	return errors.New("timeout")
}

// addNeighbour makes addr reachable at mac over link without asking, for good.
func (s *namespace) addNeighbour(link netlink.Link, addr netip.Addr, mac net.HardwareAddr) error {
	err := s.nl.NeighSet(&netlink.Neigh{
		LinkIndex:    link.Attrs().Index,
		Family:       family(addr),
		State:        netlink.NUD_PERMANENT,
		IP:           addr.AsSlice(),
		HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("adding neighbour %s: %w", addr, err)
	}
	return nil
}

// addRoute sends dst over link, by way of gateway and from source where these are valid.
func (s *namespace) addRoute(link netlink.Link, dst netip.Prefix,
	gateway, source netip.Addr) error {
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: netipx.PrefixIPNet(dst),
		Src: source.AsSlice()}
	if gateway.IsValid() {
		route.Gw = gateway.AsSlice()
		route.Flags = int(netlink.FLAG_ONLINK)
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := s.nl.RouteAdd(route); err != nil {
		return fmt.Errorf("adding route to %s: %w", dst, err)
	}
	return nil
}

// addAddr adds an address and returns when it is in use. Even without duplicate address detection
// the kernel makes an IPv6 address a local one some time after it has answered; until then packets
// to it are dropped.
func (s *namespace) addAddr(link netlink.Link, p netip.Prefix) error {
	address := &netlink.Addr{IPNet: netipx.PrefixIPNet(p)}
	if p.Addr().Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	err := s.nl.AddrAdd(link, address)
	if err == nil {
		err = await(func() (bool, error) { return s.isLocal(link, p.Addr()) })
	}
	if err != nil {
		return fmt.Errorf("adding address %s to %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

func (s *namespace) isLocal(link netlink.Link, addr netip.Addr) (bool, error) {
	options := &netlink.RouteGetOptions{}
	if addr.IsLinkLocalUnicast() {
		options.OifIndex = link.Attrs().Index
	}
	routes, err := s.nl.RouteGetWithOptions(addr.AsSlice(), options)
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return false, nil
	}
	return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, err
}

// hardwareAddr is a fixed, locally administered unicast MAC for one end of a veth.
func hardwareAddr(iface, end string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(iface + "/" + end))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// hashedName is prefix and as many hex digits of name's hash as asked for.
func hashedName(prefix, name string, digits int) string {
	sum := sha256.Sum256([]byte(name))
	return prefix + hex.EncodeToString(sum[:])[:digits]
}

func family(addr netip.Addr) int {
	if addr.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// everywhere is the prefix of a default route in addr's family.
func everywhere(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// singleHost is the prefix that holds addr alone.
func singleHost(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }
