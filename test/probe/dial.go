package probe

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dial opens a connected socket in the current namespace, with the deadline set. The network is one
// of the net package's, without its family ("tcp", "ip" with a protocol). ICMP errors of every kind
// are reported on it.
func dial(network string, dst, src netip.AddrPort, deadline time.Time) (net.Conn, error) {
	dialer := net.Dialer{Deadline: deadline, KeepAlive: -1, Control: prepare(src.Port() != 0)}
	if src.IsValid() || src.Port() != 0 {
		dialer.LocalAddr = localAddr(network, dst.Addr(), src)
	}
	digit := "6"
	if dst.Addr().Is4() {
		digit = "4"
	}
	name, protocol, raw := strings.Cut(network, ":")
	address := dst.String()
	if raw {
		protocol = ":" + protocol
		address = dst.Addr().String()
	}
	conn, err := dialer.Dial(name+digit+protocol, address)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(deadline)
}

// localAddr is src, with the unspecified address of dst's family if it has none, in the form the
// network asks for.
func localAddr(network string, dst netip.Addr, src netip.AddrPort) net.Addr {
	if !src.Addr().IsValid() {
		unspecified := netip.IPv6Unspecified()
		if dst.Is4() {
			unspecified = netip.IPv4Unspecified()
		}
		src = netip.AddrPortFrom(unspecified, src.Port())
	}
	switch network {
	case "tcp":
		return net.TCPAddrFromAddrPort(src)
	case "udp":
		return net.UDPAddrFromAddrPort(src)
	}
	return &net.IPAddr{IP: src.Addr().AsSlice(), Zone: src.Addr().Zone()}
}

// prepare sets up a socket before it is bound: every ICMP error fails it, not only those the kernel
// counts as fatal. A port that the caller chose may have been used a moment ago; for others reuse
// is off, so that no two sockets are given the same port.
func prepare(reuse bool) func(network, address string, c syscall.RawConn) error {
	return func(network, _ string, c syscall.RawConn) error {
		level, option := unix.IPPROTO_IP, unix.IP_RECVERR
		if name, _, _ := strings.Cut(network, ":"); strings.HasSuffix(name, "6") {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
		}
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), level, option, 1)
			if failed == nil && reuse {
				failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			}
		})
		return errors.Join(err, failed)
	}
}

// setOption sets an integer socket option.
func setOption(conn syscall.Conn, level, option, value int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), level, option, value)
	}); err != nil {
		return err
	}
	return failed
}

// addrPort is a TCP or UDP address of the net package.
func addrPort(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}
