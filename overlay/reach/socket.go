package reach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/link"
)

// sockets ask and hear by one tunnel device. Answers go to a channel until close.
type sockets struct {
	own       link.MAC
	arp, icmp *os.File // icmp is nil in a kernel without IPv6
	answers   chan<- heard
	stop      chan struct{}
	readers   sync.WaitGroup
	broken    atomic.Bool // no packet is heard any more: the device went down or away
}

// openSockets opens them for a link of the calling thread's network namespace.
func openSockets(index int, name string, own link.MAC,
	answers chan<- heard) (s *sockets, err error) {
	s = &sockets{own: own, answers: answers, stop: make(chan struct{})}
	if s.arp, err = openARP(index); err != nil {
		return nil, fmt.Errorf("opening a packet socket on %s: %w", name, err)
	}
	s.icmp, err = openICMP(name)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return nil,
			errors.Join(fmt.Errorf("opening an ICMPv6 socket on %s: %w", name, err), s.arp.Close())
	}
	s.readers.Go(func() { s.read(s.arp, s.readARP) })
	if s.icmp != nil {
		s.readers.Go(func() { s.read(s.icmp, s.readICMP) })
	}
	return s, nil
}

// openARP opens a socket that hears the ARP packets that come in by a link, and no others: packets
// of pods aren't copied.
func openARP(index int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ARP))
	if err := unix.Bind(fd,
		&unix.SockaddrLinklayer{Protocol: protocol, Ifindex: index}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "arp"), nil
}

// openICMP opens a socket that hears the neighbour advertisements that come in by a link.
func openICMP(link string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		unix.IPPROTO_ICMPV6)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	var filter unix.ICMPv6Filter // a bit that is set: no such messages
	for i := range filter.Data {
		filter.Data[i] = ^uint32(0)
	}
	filter.Data[advertisement/32] &^= 1 << (advertisement % 32)
	err = errors.Join(
		unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, link),
		unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &filter),
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, ndHopLimit),
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT, 1))
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("setsockopt", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "icmpv6"), nil
}

// ask sends a question to a peer.
func (s *sockets) ask(p Peer) error {
	if p.Addr.Is4() {
		_, err := s.arp.Write(arpQuestion(s.own, p))
		return err
	}
	if s.icmp == nil {
		return unix.EAFNOSUPPORT
	}
	conn, err := s.icmp.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = conn.Control(func(fd uintptr) {
		//nolint:gosec // a descriptor
		sent = unix.Sendto(int(fd), ndQuestion(p), 0, &unix.SockaddrInet6{Addr: p.Addr.As16()})
	})
	return errors.Join(err, os.NewSyscallError("sendto", sent))
}

// heard is an answer, and when it came.
type heard struct {
	Answer
	at time.Time
}

// read passes answers on until the socket is closed or fails.
func (s *sockets) read(f *os.File, one func(*os.File, []byte) (Answer, bool, error)) {
	buffer := make([]byte, 1500)
	for {
		a, ok, err := one(f, buffer)
		if err != nil {
			s.broken.Store(true)
			return
		}
		if !ok {
			continue
		}
		select {
		case s.answers <- heard{a, time.Now()}:
		case <-s.stop:
			return
		}
	}
}

func (s *sockets) readARP(f *os.File, buffer []byte) (Answer, bool, error) {
	n, err := f.Read(buffer)
	if err != nil {
		return Answer{}, false, err
	}
	a, ok := arpAnswer(s.own, buffer[:n])
	return a, ok, nil
}

func (*sockets) readICMP(f *os.File, buffer []byte) (a Answer, ok bool, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return Answer{}, false, err
	}
	control := make([]byte, unix.CmsgSpace(4))
	var n, cn int
	var from unix.Sockaddr
	var received error
	err = conn.Read(func(fd uintptr) bool {
		//nolint:gosec // a descriptor
		n, cn, _, from, received = unix.Recvmsg(int(fd), buffer, control, 0)
		return !errors.Is(received, unix.EAGAIN)
	})
	if err = errors.Join(err, received); err != nil {
		return Answer{}, false, err
	}
	if peer, is6 := from.(*unix.SockaddrInet6); is6 {
		a, ok = ndAnswer(netip.AddrFrom16(peer.Addr), hopLimit(control[:cn]), buffer[:n])
	}
	return a, ok, nil
}

// hopLimit reads the hop limit that came with a packet; -1 if none did.
func hopLimit(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return -1
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT &&
			len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return -1
}

// close closes the sockets and waits for their readers.
func (s *sockets) close() {
	close(s.stop)
	_ = s.arp.Close()
	if s.icmp != nil {
		_ = s.icmp.Close()
	}
	s.readers.Wait()
}
