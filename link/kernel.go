package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"go4.org/netipx"
	"golang.org/x/sys/unix"
)

// ProcSys is where a network namespace's settings are, as long as it isn't mounted read-only.
const ProcSys = "/proc/sys/net"

// Kernel reads and changes the network namespace of the thread that it was opened on, from whatever
// thread; only sysctls are those of the calling thread's. It is used by one goroutine at a time.
type Kernel struct {
	*netlink.Handle

	SysctlDir string // ProcSys, or where that is writable

	own   map[int]*nl.SocketHandle // for requests that the library doesn't make
	links map[string]Found         // by name, as of the last Look
	names map[int]string           // by index
}

// Open opens the network namespace of the calling thread. The caller closes it.
func Open(sysctlDir string) (*Kernel, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	_ = socket.SetReceiveTimeout(
		&nl.SocketTimeoutTv) // the kernel answers at once, or something is wrong
	own := map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
	return &Kernel{
		Handle: handle, own: own, SysctlDir: sysctlDir, links: map[string]Found{},
		names: map[int]string{},
	}, nil
}

// Close closes it.
func (k *Kernel) Close() {
	k.Handle.Close()
	k.own[unix.NETLINK_ROUTE].Close()
}

// Request is a request to the namespace, for what the netlink library has no function for.
func (k *Kernel) Request(kind, flags int) *nl.NetlinkRequest {
	request := nl.NewNetlinkRequest(kind, flags)
	request.Sockets = k.own
	return request
}

// In runs f on a thread in a network namespace; nil stands for that of the process.
func In(netns ns.NetNS, f func() error) error {
	if netns == nil {
		return f()
	}
	return netns.Do(func(ns.NetNS) error { return f() })
}

// Whole repeats a dump that the kernel interrupts because something changed meanwhile: half of one
// must not pass for the whole.
func Whole[T any](what string, dump func() (T, error)) (T, error) {
	const attempts = 10
	for i := 1; ; i++ {
		all, err := dump()
		if err == nil {
			return all, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) || i == attempts {
			var none T
			return none, fmt.Errorf("listing %s: %w", what, err)
		}
	}
}

// Links is the links by name, as of the last Look. It is not to be changed.
func (k *Kernel) Links() map[string]Found { return k.links }

// Name is that of the link with an index, as of the last Look.
func (k *Kernel) Name(index int) string {
	if name, found := k.names[index]; found {
		return name
	}
	return fmt.Sprintf("if%d", index)
}

// Index is that of a link, as of the last Look.
func (k *Kernel) Index(name string) (int, error) {
	if found, ok := k.links[name]; ok {
		return found.Index, nil
	}
	return 0, fmt.Errorf("%w %s", ErrNoLink, name)
}

// Netlink is a link, as of the last Look, for the netlink library's functions that need no more of
// it than name and index.
func (k *Kernel) Netlink(name string) (netlink.Link, error) {
	index, err := k.Index(name)
	if err != nil {
		return nil, err
	}
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index}}, nil
}

// ErrNoLink says that there is no link of a name.
var ErrNoLink = errors.New("there is no link")

// IsGone says whether an error of a removal says that there is nothing to remove.
func IsGone(err error) bool {
	for _, e := range []error{
		unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.EADDRNOTAVAIL, unix.ENXIO, ErrNoLink,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Addr is an address of either family. What is none becomes the zero Addr.
func Addr(ip []byte) netip.Addr {
	addr, _ := netipx.FromStdIP(ip)
	return addr
}

// Prefix is a prefix of either family. What is none becomes the zero Prefix.
func Prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	prefix, _ := netipx.FromStdIPNet(n)
	return prefix
}

// Single is the prefix of one address.
func Single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

// Everywhere is the prefix of a default route in addr's family.
func Everywhere(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// Family is the library's number for the family of an address.
func Family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
