package testnet

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// resendEvery is how often a query without an answer is sent again.
const resendEvery = 50 * time.Millisecond

// patience is how long MustReach and Open go on trying unless Within says otherwise: a busy machine isn't a denial.
const patience = 5 * time.Second

// Connect tries once to connect to dst, as a new flow. TCP succeeds with the server's line, UDP with the answer to a query
// (sent again every 50 ms), SCTP with the INIT ACK, ICMP (whose port is ignored) with the echo reply. Success and refusal
// return at once; silence after DefaultTimeout, or as WithTimeout says.
func (h *Host) Connect(proto Protocol, dst netip.AddrPort, opts ...Option) Result {
	o := newOptions(opts)
	var reply string
	var err error
	switch proto {
	case TCP:
		reply, err = h.connectTCP(dst, o)
	case UDP:
		reply, err = h.connectUDP(dst, o)
	case SCTP:
		reply, err = h.connectSCTP(dst, o)
	case ICMP:
		reply, err = h.connectICMP(dst.Addr(), o)
	default:
		err = fmt.Errorf("no such protocol: %s", proto)
	}
	return Result{OK: err == nil, Reply: reply, Err: err}
}

// MustReach fails the test unless the connection works, trying for up to 5 s (or as Within says). It returns the last result.
func (h *Host) MustReach(t testing.TB, proto Protocol, dst netip.AddrPort, opts ...Option) Result {
	t.Helper()
	result := h.connectPatiently(proto, dst, opts)
	if !result.OK {
		t.Errorf("%s: expected connect, got %s", h.describe(proto, dst), result)
	}
	return result
}

func (h *Host) connectPatiently(proto Protocol, dst netip.AddrPort, opts []Option) Result {
	deadline := time.Now().Add(newOptions(opts).patience)
	for {
		start := time.Now()
		result := h.Connect(proto, dst, opts...)
		if result.OK || time.Now().After(deadline) {
			return result
		}
		<-time.After(time.Until(start.Add(resendEvery))) // a refusal comes at once: don't spin
	}
}

// MustNotReach fails the test unless the connection is denied: by silence or by a reset. A connection that works fails it, and so
// do one that was set up but brought no line, and errors that aren't a denial, such as a missing route.
func (h *Host) MustNotReach(t testing.TB, proto Protocol, dst netip.AddrPort, opts ...Option) Result {
	t.Helper()
	result := h.Connect(proto, dst, opts...)
	if result.OK || !errors.Is(result.Err, ErrTimeout) && !errors.Is(result.Err, ErrReset) {
		t.Errorf("%s: expected timeout or reset, got %s", h.describe(proto, dst), result)
	}
	return result
}

// describe names a connection: "pod-a -> pod-b tcp 10.0.0.3:80".
func (h *Host) describe(proto Protocol, dst netip.AddrPort) string {
	to := dst.String()
	if proto == ICMP {
		to = dst.Addr().String()
	}
	return fmt.Sprintf("%s -> %s%s %s", h.name, h.node.describe(dst.Addr()), proto, to)
}

func (h *Host) connectTCP(dst netip.AddrPort, o options) (string, error) {
	deadline := time.Now().Add(o.timeout)
	conn, err := h.dial("tcp", dst, o.source, deadline)
	if err != nil {
		return "", reason(err)
	}
	defer closeAtOnce(conn)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%w after the handshake: %w", ErrNoReply, err)
	}
	return strings.TrimSuffix(line, "\n"), nil
}

// closeAtOnce ends a TCP connection with a reset. It leaves no TIME-WAIT behind, and no FIN that would be sent again and again, and
// be counted, when a rule drops it.
func closeAtOnce(conn net.Conn) {
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}

func (h *Host) connectUDP(dst netip.AddrPort, o options) (string, error) {
	deadline := time.Now().Add(o.timeout)
	conn, err := h.dial("udp", dst, o.source, deadline)
	if err != nil {
		return "", reason(err)
	}
	defer func() { _ = conn.Close() }()
	return query(conn, rand.Text(), deadline)
}

// query sends word over UDP until a line that ends with it comes back, and returns what is before it.
func query(conn net.Conn, word string, deadline time.Time) (string, error) {
	var line string
	err := exchange(conn, deadline, []byte(word), func(answer []byte) bool {
		var found bool
		line, found = strings.CutSuffix(string(answer), " "+word)
		return found
	})
	return line, err
}

// exchange sends packet, again and again, until an answer is accepted, an error comes back, or the deadline passes.
func exchange(conn net.Conn, deadline time.Time, packet []byte, accept func(answer []byte) bool) error {
	if err := conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for {
		// A drop in the sender's own output hook is EPERM: as silent to others as any.
		if _, err := conn.Write(packet); err != nil && !errors.Is(err, unix.EPERM) {
			return reason(err)
		}
		resend := time.Now().Add(resendEvery)
		if resend.After(deadline) {
			resend = deadline
		}
		if err := conn.SetReadDeadline(resend); err != nil {
			return err
		}
		size, err := conn.Read(buf)
		for ; err == nil; size, err = conn.Read(buf) {
			if accept(buf[:size]) {
				return nil
			}
		}
		err = reason(err)
		if !errors.Is(err, ErrTimeout) || !time.Now().Before(deadline) {
			return err
		}
	}
}

// dial opens a connected socket in the host's namespace, with the deadline set. The network is one of the net package's, without
// its family ("tcp", "ip" with a protocol). ICMP errors of every kind are reported on it.
func (h *Host) dial(network string, dst, src netip.AddrPort, deadline time.Time) (net.Conn, error) {
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
	var conn net.Conn
	err := h.Do(func() (err error) {
		conn, err = dialer.Dial(name+digit+protocol, address)
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(deadline)
}

// localAddr is src, with the unspecified address of dst's family if it has none, in the form the network asks for.
func localAddr(network string, dst netip.Addr, src netip.AddrPort) net.Addr {
	if !src.Addr().IsValid() {
		src = netip.AddrPortFrom(everywhere(dst).Addr(), src.Port())
	}
	switch network {
	case "tcp":
		return net.TCPAddrFromAddrPort(src)
	case "udp":
		return net.UDPAddrFromAddrPort(src)
	}
	return &net.IPAddr{IP: src.Addr().AsSlice(), Zone: src.Addr().Zone()}
}

// prepare sets up a socket before it is bound: every ICMP error fails it, not only those the kernel counts as fatal. A port that
// the caller chose may have been used a moment ago; for others reuse is off, so that no two sockets are given the same port.
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
