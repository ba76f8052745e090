package testnet

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ServeTCP serves port on every address of both families until the host ends. A connection is greeted with one line, the host's
// name and the peer as the server sees it ("pod-a 10.0.0.2:4242"), and stays open: each line received is answered with the same
// line and the received one behind it.
func (h *Host) ServeTCP(port uint16) {
	h.t.Helper()
	var listener net.Listener
	err := h.Do(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		h.t.Fatalf("%s serving tcp port %d: %v", h.name, port, err)
	}
	s := &tcpServer{name: h.name, listener: listener, conns: map[net.Conn]bool{}}
	s.done.Go(s.accept)
	h.onStop(s.stop)
}

type tcpServer struct {
	name     string
	listener net.Listener
	done     sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	stopped bool
}

func (s *tcpServer) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // the listener is closed
		}
		if s.add(conn) {
			s.done.Go(func() { s.serve(conn) })
		}
	}
}

// add notes conn, or closes it when the server has stopped.
func (s *tcpServer) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		_ = conn.Close()
		return false
	}
	s.conns[conn] = true
	return true
}

// serve talks until either end closes; an error is the client's to notice.
func (s *tcpServer) serve(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	greeting := greet(s.name, addrPort(conn.RemoteAddr()))
	if _, err := fmt.Fprintf(conn, "%s\n", greeting); err != nil {
		return
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if _, err := fmt.Fprintf(conn, "%s %s\n", greeting, lines.Text()); err != nil {
			return
		}
	}
}

func (s *tcpServer) stop() {
	_ = s.listener.Close()
	s.mu.Lock()
	s.stopped = true
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
}

// ServeUDP serves port on every address of both families until the host ends. A datagram is answered with one line, the host's
// name and the peer as the server sees it, and the datagram's content behind it if there is any. The answer comes from the
// address the datagram was sent to.
func (h *Host) ServeUDP(port uint16) {
	h.t.Helper()
	conn, err := h.listenUDP(port)
	if err != nil {
		h.t.Fatalf("%s serving udp port %d: %v", h.name, port, err)
	}
	var done sync.WaitGroup
	done.Go(func() { serveUDP(h.name, conn) })
	h.onStop(func() {
		_ = conn.Close()
		done.Wait()
	})
}

// listenUDP opens a socket for both families that reports the address each datagram was sent to.
func (h *Host) listenUDP(port uint16) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := setOption(conn, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
		_ = conn.Close()
		return nil, err
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

// sourceOf turns the control message of a received datagram into the one that sends from the address it was sent to.
func sourceOf(oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo {
			info := &unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])}
			return unix.PktInfo6(info) // no interface: the route decides
		}
	}
	return nil
}

// greet is the line a server answers with.
func greet(name string, peer netip.AddrPort) string {
	return name + " " + netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()).String()
}

// addrPort is a TCP or UDP address of the net package.
func addrPort(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}

// setOption sets an integer socket option.
func setOption(conn syscall.Conn, level, option, value int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) }); err != nil {
		return err
	}
	return failed
}
