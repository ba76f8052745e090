package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// SCTPServer serves SCTP at any address of its namespace. By sockets, if the kernel has them, it
// sends the line that servers answer with. Otherwise it answers INIT chunks: on an open port with
// an INIT ACK whose state cookie holds that line, on others with an ABORT. There should be one in a
// namespace.
type SCTPServer struct {
	name      string
	conns     []*net.IPConn
	listeners []*sctpListener // where the kernel has sockets
	sockets   bool
	done      sync.WaitGroup

	mu    sync.Mutex
	ports map[uint16]bool
}

// ListenSCTP starts a server with no port open. Until then a kernel without SCTP sockets answers
// with protocol unreachable.
func ListenSCTP(name string) (*SCTPServer, error) {
	s := &SCTPServer{name: name, ports: map[uint16]bool{}, sockets: HasSCTPSockets()}
	if s.sockets {
		return s, nil
	}
	for _, network := range []string{"ip4:132", "ip6:132"} {
		conn, err := listenIP(network)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("serving sctp: %w", err)
		}
		s.conns = append(s.conns, conn)
		s.done.Go(func() { s.serve(conn, network == "ip4:132") })
	}
	return s, nil
}

// listenIP opens a raw socket that, where it isn't in the packet, reports the address each packet
// was sent to.
func listenIP(network string) (*net.IPConn, error) {
	conn, err := net.ListenIP(network, nil)
	if err != nil || network == "ip4:132" {
		return conn, err
	}
	if err := setOption(conn, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// Open has a port served from now on. It is called in the server's namespace, by one goroutine.
func (s *SCTPServer) Open(port uint16) error {
	if s.sockets {
		for _, is4 := range []bool{true, false} {
			l, err := listenSCTPSocket(is4, port)
			if err != nil {
				return err
			}
			s.listeners = append(s.listeners, l)
			s.done.Go(func() { l.serve(s.name) })
		}
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports[port] = true
	return nil
}

// Close ends the server. Closing twice is no error.
func (s *SCTPServer) Close() {
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	for _, l := range s.listeners {
		_ = l.socket.Close()
	}
	s.done.Wait()
}

func (s *SCTPServer) serve(conn *net.IPConn, is4 bool) {
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for {
		size, oobSize, _, peer, err := conn.ReadMsgIP(buf, oob)
		if err != nil {
			return // the socket is closed: unconnected sockets report nothing else
		}
		packet, source := buf[:size], sourceOf(oob[:oobSize])
		if is4 {
			if size < headerLen4 {
				continue
			}
			source = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte(packet[16:20])})
			packet = stripHeader4(packet)
		}
		from, _ := netip.AddrFromSlice(peer.IP)
		if answer, ok := s.answer(packet, from.Unmap()); ok {
			// A failed answer is the client's to notice.
			_, _, _ = conn.WriteMsgIP(answer, source, peer)
		}
	}
}

// answer is what an SCTP packet from peer is to be answered with, if anything.
func (s *SCTPServer) answer(packet []byte, peer netip.Addr) ([]byte, bool) {
	p, ok := parseSCTP(packet)
	if !ok || p.chunk != sctpInit {
		return nil, false
	}
	s.mu.Lock()
	open := s.ports[p.dest]
	s.mu.Unlock()
	reply := sctpPacket{source: p.dest, dest: p.source, tag: p.initTag, chunk: sctpAbort}
	if open {
		reply.chunk = sctpInitAck
		reply.initTag = randomUint32()
		reply.cookie = greet(s.name, netip.AddrPortFrom(peer, p.source))
	}
	return reply.marshal(), true
}
