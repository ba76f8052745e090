package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Bytes of the headers of a UDP datagram.
const (
	headers4 = 20 + 8
	headers6 = 40 + 8
)

// dontFragment sets DF on all that a socket sends: what is too long is refused.
func dontFragment(network, _ string, raw syscall.RawConn) error {
	var failure error
	err := raw.Control(func(fd uintptr) {
		if network == "udp4" || network == "tcp4" {
			failure = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER,
				unix.IP_PMTUDISC_DO)
			return
		}
		failure = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER,
				unix.IPV6_PMTUDISC_DO),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1))
	})
	return errors.Join(err, failure)
}

func network(protocol string, addr netip.Addr) string {
	if addr.Is4() {
		return protocol + "4"
	}
	return protocol + "6"
}

// carries demands that datagrams with DF set get from a pod to another up to the sender's MTU, and
// that one byte more is refused at once.
func (w *world) carries(from, to string, mtu int) {
	w.t.Helper()
	if got := w.linkMTU(from, "eth0"); got != mtu {
		w.t.Errorf("%s has an MTU of %d, want %d", from, got, mtu)
	}
	for _, dst := range w.addrs(to) {
		most := mtu - headers4
		if dst.Is6() {
			most = mtu - headers6
		}
		for _, size := range []int{1400, most} {
			if err := w.datagram(from, to, dst, min(size, most)); err != nil {
				w.t.Errorf("%s -> %s: a datagram with %d bytes: %v", from, dst, size, err)
			}
		}
		if err := w.datagram(from, to, dst, most+1); !errors.Is(err, unix.EMSGSIZE) {
			w.t.Errorf("%s -> %s: a datagram with %d bytes, one too many: got %v, want %v", from,
				dst, most+1, err, unix.EMSGSIZE)
		}
	}
}

// datagram sends a datagram with DF set, and waits until it is there.
func (w *world) datagram(from, to string, dst netip.Addr, size int) error {
	var receiver net.PacketConn
	err := w.Do(to, func() (err error) {
		// Any free port: a process that starts just now may hold the last receiver's for a moment
		// longer.
		receiver, err = net.ListenPacket(network("udp", dst), net.JoinHostPort(dst.String(), "0"))
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = receiver.Close() }()
	var sender net.Conn
	err = w.Do(from, func() (err error) {
		dialer := net.Dialer{Control: dontFragment}
		sender, err = dialer.Dial(network("udp", dst), receiver.LocalAddr().String())
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = sender.Close() }()
	if _, err := sender.Write(make([]byte, size)); err != nil {
		return err
	}
	if err := receiver.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	n, _, err := receiver.ReadFrom(make([]byte, 64<<10))
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes arrived", n)
	}
	return err
}

// stream is a TCP connection that lasts, with DF set at both ends.
type stream struct {
	name string
	ends [2]*net.TCPConn
}

// open opens a stream between pods, that ends with the test.
func (w *world) open(from, to string, dst netip.Addr) *stream {
	w.t.Helper()
	s := &stream{name: fmt.Sprintf("%s -> %s %s", from, to, dst)}
	var listener net.Listener
	must(w.t, w.Do(to, func() (err error) {
		config := net.ListenConfig{Control: dontFragment}
		config.SetMultipathTCP(false) // which has no DF
		listener, err = config.Listen(context.Background(), network("tcp", dst),
			fmt.Sprintf("%s:0", bracketed(dst)))
		return err
	}))
	defer func() { _ = listener.Close() }()
	must(w.t, w.Do(from, func() error {
		dialer := net.Dialer{Control: dontFragment, Timeout: 10 * time.Second}
		conn, err := dialer.Dial(network("tcp", dst), listener.Addr().String())
		if err == nil {
			s.ends[0], _ = conn.(*net.TCPConn)
		}
		return err
	}))
	conn, err := listener.Accept()
	must(w.t, err)
	s.ends[1], _ = conn.(*net.TCPConn)
	w.t.Cleanup(func() {
		for _, end := range s.ends {
			_ = end.Close()
		}
	})
	return s
}

func bracketed(addr netip.Addr) string {
	if addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return addr.String()
}

// openAll opens a stream between two pods for each family.
func (w *world) openAll(from, to string) (streams []*stream) {
	w.t.Helper()
	for _, dst := range w.addrs(to) {
		streams = append(streams, w.open(from, to, dst))
	}
	return streams
}

// carry demands that 1 MB goes each way on every stream, and logs how long that took.
func carry(t *testing.T, when string, streams ...*stream) {
	t.Helper()
	for _, s := range streams {
		start := time.Now()
		if err := s.carry(1 << 20); err != nil {
			t.Errorf("%s: 1 MB each way on %s: %v", when, s.name, err)
			continue
		}
		t.Logf("%s: 1 MB each way on %s in %s", when, s.name,
			time.Since(start).Round(time.Millisecond))
	}
}

func (s *stream) carry(size int64) error {
	var busy errgroup.Group
	for i, end := range s.ends {
		if err := end.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
			return err
		}
		other := s.ends[1-i]
		busy.Go(func() error {
			_, err := end.Write(make([]byte, size))
			return err
		})
		busy.Go(func() error {
			_, err := io.CopyN(io.Discard, other, size)
			return err
		})
	}
	return busy.Wait()
}
