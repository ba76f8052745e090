package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
)

// resendEvery is how often a packet without an answer is sent again.
const resendEvery = 500 * time.Millisecond

// sendPacket sends a UDP datagram or an ICMP echo request and waits for the answer. With df the
// size is that of the packet, which may not be fragmented, and the path's MTU is returned;
// otherwise the size is the content's.
func sendPacket(protocol string, addr netip.AddrPort, size int, df bool,
	deadline time.Time) (reply string, mtu int, err error) {
	is4 := addr.Addr().Is4()
	header := 0
	if df {
		header = 40 + 8 // of IPv6, and of UDP or ICMP
		if is4 {
			header = 20 + 8
		}
	}
	content := size - header
	if content < 16 {
		return "", 0, fmt.Errorf("a size of %d leaves no room for content", size)
	}
	conn, err := openPacket(protocol, addr, df)
	if err != nil {
		return "", 0, socketError(err)
	}
	defer func() { _ = conn.Close() }()
	packet, accept := datagram(content)
	if protocol == testprogram.ICMP {
		packet, accept = echoRequest(content, is4)
	}
	reply, err = exchange(conn, packet, accept, df, deadline)
	if df {
		mtu = knownMTU(conn, is4)
	}
	return reply, mtu, err
}

// openPacket opens a connected socket. A packet over the MTU of the path, as far as that is known,
// is an error at once with df.
func openPacket(protocol string, addr netip.AddrPort, df bool) (net.Conn, error) {
	network, address := "udp", addr.String()
	if protocol == testprogram.ICMP {
		network, address = "ip6:58", addr.Addr().String()
		if addr.Addr().Is4() {
			network = "ip4:1"
		}
	}
	level, discover, mode, recvErr := unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER,
		unix.IPV6_PMTUDISC_DO, unix.IPV6_RECVERR
	if addr.Addr().Is4() {
		level, discover, mode, recvErr = unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO,
			unix.IP_RECVERR
	}
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), level, recvErr, 1)
			if df {
				failed = errors.Join(failed, unix.SetsockoptInt(int(fd), level, discover, mode))
			}
		})
		return errors.Join(err, failed)
	}}
	return dialer.Dial(network, address)
}

// knownMTU is the path's MTU as the kernel knows it, or 0.
func knownMTU(conn net.Conn, is4 bool) int {
	level, name := unix.IPPROTO_IPV6, unix.IPV6_MTU
	if is4 {
		level, name = unix.IPPROTO_IP, unix.IP_MTU
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return 0
	}
	mtu, err := option(socket, level, name)
	if err != nil {
		return 0
	}
	return mtu
}

// exchange sends packet, again and again, until an answer is accepted, an error comes back, or the
// deadline passes. Unless df is set, the kernel learns from a packet that was too large into what
// to cut the next one.
func exchange(conn net.Conn, packet []byte, accept func([]byte) (string, bool), df bool,
	deadline time.Time) (string, error) {
	fatal := func(err error) bool { return err != nil && (df || !errors.Is(err, unix.EMSGSIZE)) }
	for {
		if _, err := conn.Write(packet); fatal(err) {
			return "", socketError(err)
		}
		resend := time.Now().Add(resendEvery)
		if resend.After(deadline) {
			resend = deadline
		}
		if err := conn.SetReadDeadline(resend); err != nil {
			return "", err
		}
		reply, err := readAnswer(conn, accept)
		switch {
		case err == nil:
			return reply, nil
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(deadline), !fatal(err):
		default:
			return "", socketError(err)
		}
	}
}

// readAnswer reads until an answer is accepted.
func readAnswer(conn net.Conn, accept func([]byte) (string, bool)) (string, error) {
	buf := make([]byte, 1<<16)
	for {
		size, err := conn.Read(buf)
		if err != nil {
			return "", err
		}
		if reply, ok := accept(buf[:size]); ok {
			return reply, nil
		}
	}
}

// datagram is a datagram's content and what recognizes the answer: its end, and with content that
// large the size.
func datagram(size int) (content []byte, accept func([]byte) (string, bool)) {
	content = []byte(randomText(size))
	return content, func(answer []byte) (string, bool) {
		greeting, rest, found := bytes.Cut(answer, []byte{' '})
		from, rest, ok := bytes.Cut(rest, []byte{' '})
		same := found && ok && len(rest) > 0 && bytes.HasSuffix(content, rest)
		if size > echoWhole {
			same = same && len(answer) == size
		}
		return string(greeting) + " " + string(from), same
	}
}

// echoRequest is an ICMP echo request (RFC 792, RFC 4443) and what recognizes the reply. Over IPv6
// the kernel fills in the checksum.
func echoRequest(size int, is4 bool) (request []byte, accept func([]byte) (string, bool)) {
	kind, reply := byte(128), byte(129)
	if is4 {
		kind, reply = 8, 0
	}
	content := randomText(size)
	// an identifier of its own, sequence 1
	request = append([]byte{kind, 0, 0, 0, content[0], content[1], 0, 1}, content...)
	if is4 {
		binary.BigEndian.PutUint16(request[2:], checksum(request))
	}
	return request, func(answer []byte) (string, bool) {
		if is4 && len(answer) > 0 {
			// raw sockets deliver the header of IPv4
			answer = answer[min(len(answer), int(answer[0]&15)*4):]
		}
		return "echo", len(answer) == len(request) && answer[0] == reply &&
			bytes.Equal(answer[4:], request[4:])
	}
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
