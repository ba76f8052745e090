package main

import (
	"net"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
)

// echoWhole is the largest datagram that is answered with the greeting and its whole content. The
// answer to a larger one has the datagram's own size, with the greeting in the place of its first
// bytes, so that what fits one way fits the other.
const echoWhole = 512

// openUDP serves a port of every address. Each datagram is answered, from the address it was sent
// to.
func (s *server) openUDP(port uint16) error {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		return err
	}
	s.stops = append(s.stops, func() { _ = conn.Close() })
	// Where the kernel has no IPv6 the socket can't do this; a pod has one address then, so nothing
	// is lost.
	_ = setOption(conn, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	go s.answerDatagrams(conn, port)
	return nil
}

func (s *server) answerDatagrams(conn *net.UDPConn, port uint16) {
	buf, oob := make([]byte, 1<<16), make([]byte, 256)
	for {
		size, oobSize, _, from, err := conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return // closed: unconnected sockets report nothing else
		}
		answer := answerTo(buf[:size], s.came(testprogram.UDP, port, from))
		// A failed answer is the client's to notice.
		_, _, _ = conn.WriteMsgUDPAddrPort(answer, sentTo(oob[:oobSize]), from)
	}
}

// answerTo is the answer to a datagram of this content.
func answerTo(content []byte, greeting string) []byte {
	answer := []byte(greeting)
	if len(content) == 0 {
		return answer
	}
	answer = append(answer, ' ')
	if len(content) > echoWhole {
		content = content[min(len(content), len(answer)):]
	}
	return append(answer, content...)
}

// sentTo turns the control message of a received datagram into the one that sends from the address
// it was sent to.
func sentTo(oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO &&
			len(m.Data) >= unix.SizeofInet6Pktinfo {
			// no interface: the route decides
			return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])})
		}
	}
	return nil
}
