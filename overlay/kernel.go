package overlay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/names"
)

// kernel reads and changes the network namespace of the thread that it was opened on, and is used on such threads only.
type kernel struct {
	netlinksafe.Handle
	links map[string]netlink.Link // by name, as of the last dump
	names map[int]string          // by index
}

func openKernel() (*kernel, error) {
	handle, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	return &kernel{Handle: handle}, nil
}

// dumped repeats a dump that the kernel interrupts because something changed meanwhile. Half a dump must not pass for the whole:
// package netlinksafe, after some attempts, returns what it has.
func dumped[T any](what string, dump func() ([]T, error)) ([]T, error) {
	const attempts = 10
	for i := 1; ; i++ {
		all, err := dump()
		if err == nil {
			return all, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) || i == attempts {
			return nil, fmt.Errorf("listing %s: %w", what, err)
		}
	}
}

// readLinks lists all links, and returns those on which the node can have its addresses.
func (k *kernel) readLinks() ([]Link, error) {
	all, err := dumped("links", k.Handle.Handle.LinkList)
	if err != nil {
		return nil, err
	}
	addresses, err := k.readAddresses()
	if err != nil {
		return nil, err
	}
	k.links, k.names = map[string]netlink.Link{}, map[int]string{}
	var links []Link
	for _, l := range all {
		attrs := l.Attrs()
		k.links[attrs.Name], k.names[attrs.Index] = l, attrs.Name
		if !isDevice(attrs.Name) && len(addresses[attrs.Index]) > 0 {
			links = append(links, Link{
				Name:     attrs.Name,
				MTU:      attrs.MTU,
				Prefixes: addresses[attrs.Index],
				Loopback: attrs.Flags&net.FlagLoopback != 0 || l.Type() == "dummy",
			})
		}
	}
	return links, nil
}

// readAddresses is the addresses of each link, without the link-local ones.
func (k *kernel) readAddresses() (map[int][]netip.Prefix, error) {
	all, err := dumped("addresses", func() ([]netlink.Addr, error) { return k.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	addresses := map[int][]netip.Prefix{}
	for _, a := range all {
		if p := prefixOf(a.IPNet); p.IsValid() && !p.Addr().IsLinkLocalUnicast() {
			addresses[a.LinkIndex] = append(addresses[a.LinkIndex], p)
		}
	}
	return addresses, nil
}

// isDevice says whether a link's name is that of a tunnel device, of whatever VNI.
func isDevice(name string) bool {
	vni, found := strings.CutPrefix(name, names.Tunnel)
	return found && vni != "" && strings.Trim(vni, "0123456789") == ""
}

func (k *kernel) name(index int) string {
	if name, found := k.names[index]; found {
		return name
	}
	return fmt.Sprintf("if%d", index)
}

func (k *kernel) index(name string) (int, error) {
	link, found := k.links[name]
	if !found {
		return 0, fmt.Errorf("there is no link %s", name)
	}
	return link.Attrs().Index, nil
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}

// addrOf is the zero Addr for what is no address.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func netlinkFamily(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
