package probe

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// ServeUDP serves port on every address of both families. A datagram is answered with one line:
// name, the peer as the server sees it, and the datagram's content behind it if there is any. The
// answer comes from the address the datagram was sent to.
func ServeUDP(name string, port uint16) (*Server, error) {
	conn, err := listenUDP(port)
	if err != nil {
		return nil, fmt.Errorf("serving udp port %d: %w", port, err)
	}
	var done sync.WaitGroup
	done.Go(func() { serveUDP(name, conn) })
	return &Server{stop: func() {
		_ = conn.Close()
		done.Wait()
	}}, nil
}

// listenUDP opens a socket for both families that reports the address each datagram was sent to.
func listenUDP(port uint16) (*net.UDPConn, error) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		return nil, err
	}
	if err := setOption(conn, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func serveUDP(name string, conn *net.UDPConn) {
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for {
		size, oobSize, _, peer, err := conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return // the socket is closed: unconnected sockets report nothing else
		}
		line := greet(name, peer)
		if size > 0 {
			line += " " + string(buf[:size])
		}
		// A failed answer, such as one that an output rule drops, is the client's to notice.
		_, _, _ = conn.WriteMsgUDPAddrPort([]byte(line), sourceOf(oob[:oobSize]), peer)
	}
}

// sourceOf turns the control message of a received datagram into the one that sends from the
// address it was sent to.
func sourceOf(oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO &&
			len(m.Data) >= unix.SizeofInet6Pktinfo {
			info := &unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])}
			return unix.PktInfo6(info) // no interface: the route decides
		}
	}
	return nil
}
