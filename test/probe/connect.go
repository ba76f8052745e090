package probe

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// resendEvery is how often a query without an answer is sent again.
const resendEvery = 50 * time.Millisecond

// Connect tries once to connect to dst, as a new flow. TCP succeeds with the server's answer to a
// line, UDP with the answer to a query (sent again every 50 ms), SCTP with the INIT ACK, ICMP
// (whose port is ignored) with the echo reply. Success and refusal return at once; silence after
// DefaultTimeout, or as WithTimeout says.
func Connect(proto Protocol, dst netip.AddrPort, opts ...Option) Result {
	o := newOptions(opts)
	var reply string
	var err error
	switch proto {
	case TCP:
		reply, err = connectTCP(dst, o)
	case UDP:
		reply, err = connectUDP(dst, o)
	case SCTP:
		reply, err = connectSCTP(dst, o)
	case ICMP:
		reply, err = connectICMP(dst.Addr(), o)
	default:
		err = fmt.Errorf("no such protocol: %s", proto)
	}
	return Result{OK: err == nil, Reply: reply, Err: err}
}

// Reach calls Connect until it succeeds, for up to 5 s, or as Within says. It returns the last
// result.
func Reach(proto Protocol, dst netip.AddrPort, opts ...Option) Result {
	deadline := time.Now().Add(newOptions(opts).patience)
	for {
		start := time.Now()
		result := Connect(proto, dst, opts...)
		if result.OK || time.Now().After(deadline) {
			return result
		}
		<-time.After(time.Until(start.Add(resendEvery))) // a refusal comes at once: don't spin
	}
}

func connectTCP(dst netip.AddrPort, o options) (string, error) {
	deadline := time.Now().Add(o.timeout)
	conn, err := dial("tcp", dst, o.source, deadline)
	if err != nil {
		return "", reason(err)
	}
	defer closeAtOnce(conn)
	line, err := newLineTalk(conn).ask(rand.Text())
	if err != nil {
		return "", fmt.Errorf("%w after the handshake: %w", ErrNoReply, err)
	}
	return line, nil
}

// closeAtOnce ends a TCP connection with a reset. It leaves no TIME-WAIT behind, and no FIN that
// would be sent again and again, and be counted, when a rule drops it.
func closeAtOnce(conn net.Conn) {
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}

func connectUDP(dst netip.AddrPort, o options) (string, error) {
	deadline := time.Now().Add(o.timeout)
	conn, err := dial("udp", dst, o.source, deadline)
	if err != nil {
		return "", reason(err)
	}
	defer func() { _ = conn.Close() }()
	return query(conn, rand.Text(), deadline)
}

// query sends word over UDP until a line that ends with it comes back, and returns what is before
// it.
func query(conn net.Conn, word string, deadline time.Time) (string, error) {
	var line string
	err := exchange(conn, deadline, []byte(word), func(answer []byte) bool {
		var found bool
		line, found = strings.CutSuffix(string(answer), " "+word)
		return found
	})
	return line, err
}

// exchange sends packet, again and again, until an answer is accepted, an error comes back, or the
// deadline passes.
func exchange(conn net.Conn, deadline time.Time, packet []byte,
	accept func(answer []byte) bool) error {
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
