package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Where the kernel has SCTP sockets, SCTP is spoken by them: such a kernel answers itself what
// comes for raw sockets. A connection is an association of one stream, as by connect(2).

// HasSCTPSockets says whether the kernel has SCTP sockets. To ask loads the module.
func HasSCTPSockets() bool {
	fd, err := sctpSocket(true)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err == nil
}

func sctpSocket(is4 bool) (int, error) {
	family := unix.AF_INET6
	if is4 {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC,
		unix.IPPROTO_SCTP)
	if err != nil {
		return -1, fmt.Errorf("making an SCTP socket: %w", err)
	}
	if !is4 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	// On close there is an ABORT, and no SHUTDOWN that would be sent again and again.
	linger := &unix.Linger{Onoff: 1}
	if err = errors.Join(err, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER,
		linger)); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func sockaddrPort(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port))
	}
	return netip.AddrPort{}
}

// connectSCTPSocket returns the line that the server sends once it has accepted.
func connectSCTPSocket(dst netip.AddrPort, o options) (string, error) {
	deadline := time.Now().Add(o.timeout)
	src, err := sctpSource(dst, o.source, deadline)
	if err != nil {
		return "", reason(err)
	}
	fd, err := sctpSocket(dst.Addr().Is4())
	if err != nil {
		return "", err
	}
	socket := os.NewFile(uintptr(fd), "sctp")
	defer func() { _ = socket.Close() }()
	if err := socket.SetDeadline(deadline); err != nil {
		return "", err
	}
	if err := unix.Bind(fd, sockaddr(src)); err != nil {
		return "", reason(err)
	}
	err = unix.Connect(fd, sockaddr(dst))
	if errors.Is(err, unix.EINPROGRESS) {
		err = awaitConnected(socket)
	}
	if err != nil {
		return "", reason(err)
	}
	line := make([]byte, 512)
	n, err := socket.Read(line)
	if err != nil {
		return "", fmt.Errorf("%w after the handshake: %w", ErrNoReply, reason(err))
	}
	return string(line[:n]), nil
}

// sctpSource is the one address to speak from. An unbound socket would offer all addresses of the
// namespace, which the other end then tries as well.
func sctpSource(dst, src netip.AddrPort, deadline time.Time) (netip.AddrPort, error) {
	if src.Addr().IsValid() {
		return src, nil
	}
	conn, err := dial("udp", dst, netip.AddrPort{}, deadline) // sends nothing
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer func() { _ = conn.Close() }()
	return netip.AddrPortFrom(addrPort(conn.LocalAddr()).Addr(), src.Port()), nil
}

// awaitConnected waits for the end of the handshake, or the socket's deadline.
func awaitConnected(socket *os.File) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		var number int
		number, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if failed == nil && number != 0 {
			failed = syscall.Errno(number)
		}
		if failed != nil {
			return true
		}
		_, peerless := unix.Getpeername(int(fd))
		return peerless == nil // otherwise it isn't connected yet
	})
	return errors.Join(err, failed)
}

// An sctpListener greets who connects to a port.
type sctpListener struct{ socket *os.File }

func listenSCTPSocket(is4 bool, port uint16) (*sctpListener, error) {
	fd, err := sctpSocket(is4)
	if err != nil {
		return nil, err
	}
	all := netip.IPv6Unspecified()
	if is4 {
		all = netip.IPv4Unspecified()
	}
	const backlog = 128
	if err := errors.Join(unix.Bind(fd, sockaddr(netip.AddrPortFrom(all, port))),
		unix.Listen(fd, backlog)); err != nil {
		return nil, errors.Join(fmt.Errorf("listening on sctp/%d: %w", port, err), unix.Close(fd))
	}
	return &sctpListener{os.NewFile(uintptr(fd), "sctp listener")}, nil
}

// serve greets until the socket is closed. It keeps connections until their clients end them.
func (l *sctpListener) serve(name string) {
	raw, err := l.socket.SyscallConn()
	if err != nil {
		return
	}
	for {
		var fd int
		var peer unix.Sockaddr
		var failed error
		err := raw.Read(func(listener uintptr) bool {
			fd, peer, failed = unix.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			return !errors.Is(failed, unix.EAGAIN)
		})
		if err != nil {
			return // closed
		}
		if failed != nil {
			continue // that client has gone already
		}
		go greetSCTP(os.NewFile(uintptr(fd), "sctp server"), greet(name, sockaddrPort(peer)))
	}
}

func greetSCTP(conn *os.File, line string) {
	defer func() { _ = conn.Close() }()
	if conn.SetDeadline(time.Now().Add(Patience)) != nil {
		return
	}
	if _, err := conn.Write([]byte(line)); err != nil {
		return
	}
	_, _ = conn.Read(make([]byte, 1)) // until the client has read, and ended it
}
