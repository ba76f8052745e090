package bench

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/test/stretch"
)

// firstNumber is of the first request on a way.
const firstNumber byte = 0

// The ports of every load; policies allow serverPort only.
const clientPort, serverPort = 9001, 9000

// meter puts load on a way for some time and returns how much per second came through it.
type meter func(time.Duration) (float64, error)

// load is a kind of traffic.
type load struct {
	unit string // of what a meter returns
	open func(*testing.B, way) meter
}

var (
	tcpStream  = load{"B/s", openTCPStream}
	udpStream  = load{"B/s", openUDPStream}
	udpWork    = load{"datagrams/CPU-s", openUDPWork}
	udpOneWay  = load{"datagrams/CPU-s", openUDPOneWay}
	tcpRequest = load{"requests/s", openTCPRequest}
	udpRequest = load{"requests/s", openUDPRequest}
	tcpConnect = load{"connections/s", openTCPConnect}
)

// socket is the descriptor of a connected socket whose calls block the thread. The runtime doesn't
// know of it: its poller would be woken by what arrives, on the time of whoever sends.
type socket int

// lossTimeout is when a request or its answer counts as lost, and is asked again.
var lossTimeout = unix.NsecToTimeval(stretch.By(5 * time.Second).Nanoseconds())

// asks is how often something is asked before the way counts as broken. On a machine that stands
// still for longer than the timeout, an answer that has just come loses against it.
const asks = 3

// blocking takes over a connection.
func blocking(b *testing.B, conn interface {
	io.Closer
	File() (*os.File, error)
}) socket {
	b.Helper()
	file, err := conn.File()
	must(b, errors.Join(err, conn.Close()))
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(b, errors.Join(err, file.Close())) // the poller forgets it
	b.Cleanup(func() {
		if err := unix.Close(fd); err != nil {
			b.Error(err)
		}
	})
	must(b, unix.SetNonblock(fd, false))
	return socket(fd)
}

func (s socket) fd() int { return int(s) }

// end wakes all that wait for the socket; awaitEnd is called then.
func (s socket) end(b *testing.B, awaitEnd func()) {
	b.Helper()
	if err := unix.Shutdown(s.fd(), unix.SHUT_RDWR); err != nil && !errors.Is(err, unix.ENOTCONN) {
		b.Error(err)
	}
	awaitEnd()
}

// pipe is a client's socket and its server's, which serve is run for until the benchmark ends.
func pipe(b *testing.B, client, server socket, serve func(server int)) {
	b.Helper()
	must(b, unix.SetsockoptTimeval(client.fd(), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &lossTimeout))
	var serving sync.WaitGroup
	fd := server.fd()
	serving.Go(func() { serve(fd) })
	b.Cleanup(func() {
		client.end(b, func() {})
		server.end(b, serving.Wait)
	})
}

// read and write go on after a signal, such as those by which the runtime gets at its threads: with
// a timeout set, the kernel doesn't.
func read(fd int, p []byte) (n int, err error) {
	for n, err = unix.Read(fd, p); errors.Is(err, unix.EINTR); {
		n, err = unix.Read(fd, p)
	}
	return n, err
}

func write(fd int, p []byte) (err error) {
	for _, err = unix.Write(fd, p); errors.Is(err, unix.EINTR); {
		_, err = unix.Write(fd, p)
	}
	return err
}

// in runs f in a network namespace.
func in[T any](b *testing.B, where place, f func() (T, error)) T {
	b.Helper()
	var value T
	must(b, where.Do(func() (err error) { value, err = f(); return err }))
	return value
}

func must(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// tcpPair connects a client and a server.
func tcpPair(b *testing.B, w way) (client, server socket) {
	b.Helper()
	listener := listenTCP(b, w)
	defer func() { _ = listener.Close() }() // without a waiter
	dialed := dialTCP(b, w)
	must(b, listener.SetDeadline(time.Now().Add(patience)))
	accepted, err := listener.AcceptTCP()
	must(b, err)
	return blocking(b, dialed), blocking(b, accepted)
}

func listenTCP(b *testing.B, w way) *net.TCPListener {
	b.Helper()
	return in(b, w.server, func() (*net.TCPListener, error) {
		return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.to, serverPort)))
	})
}

func dialTCP(b *testing.B, w way) *net.TCPConn {
	b.Helper()
	return in(b, w.client, func() (*net.TCPConn, error) {
		dialer := net.Dialer{Timeout: patience}
		conn, err := dialer.DialContext(b.Context(), "tcp",
			netip.AddrPortFrom(w.to, serverPort).String())
		if err != nil {
			return nil, err
		}
		return conn.(*net.TCPConn), nil
	})
}

// udpPair has each send to the other. Each has sent something, as otherwise connection tracking
// takes every datagram for the first one.
func udpPair(b *testing.B, w way) (client, server socket) {
	b.Helper()
	client, server = udpSockets(b, w)
	for _, ends := range [][2]socket{{client, server}, {server, client}} {
		must(b,
			unix.SetsockoptTimeval(ends[1].fd(), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &lossTimeout))
		must(b, exchange(ends[0].fd(), ends[1].fd(), firstNumber))
	}
	// it waits for ever
	must(b, unix.SetsockoptTimeval(server.fd(), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{}))
	return client, server
}

func udpSockets(b *testing.B, w way) (client, server socket) {
	b.Helper()
	from, to := netip.AddrPortFrom(w.from, clientPort), netip.AddrPortFrom(w.to, serverPort)
	dial := func(where place, local, remote netip.AddrPort) socket {
		return blocking(b, in(b, where, func() (*net.UDPConn, error) {
			return net.DialUDP("udp", net.UDPAddrFromAddrPort(local),
				net.UDPAddrFromAddrPort(remote))
		}))
	}
	server = dial(w.server, to, from)
	return dial(w.client, from, to), server
}

const (
	tcpBlock = 128 << 10 // a write
	udpBlock = 1400      // a datagram, which fits every way
)

func openTCPStream(b *testing.B, w way) meter {
	b.Helper()
	client, server := tcpPair(b, w)
	return stream(b, client, server, tcpBlock)
}

func openUDPStream(b *testing.B, w way) meter {
	b.Helper()
	client, server := udpPair(b, w)
	return stream(b, client, server, udpBlock)
}

// stream sends as fast as the way takes it. What arrives counts.
func stream(b *testing.B, client, server socket, block int) meter {
	b.Helper()
	var received atomic.Int64
	pipe(b, client, server, func(fd int) { receive(fd, &received) })
	data := make([]byte, block)
	return func(d time.Duration) (float64, error) {
		before, start := received.Load(), time.Now()
		for time.Since(start) < d {
			if err := write(client.fd(), data); err != nil {
				return 0, fmt.Errorf("sending: %w", err)
			}
		}
		rate := float64(received.Load()-before) / time.Since(start).Seconds()
		drain(&received)
		return rate, nil
	}
}

// receive counts what arrives until the socket ends.
func receive(fd int, received *atomic.Int64) {
	for buffer := make([]byte, 2*tcpBlock); ; {
		n, err := read(fd, buffer)
		if n <= 0 || err != nil {
			return
		}
		received.Add(int64(n))
	}
}

// openUDPWork counts datagrams by the time that the sending thread was on a CPU. Between
// namespaces, the kernel does all of a datagram's way up to the server's socket on that thread, so
// this is what the way costs, and what else the machine does has little part in it.
func openUDPWork(b *testing.B, w way) meter {
	b.Helper()
	client, server := udpPair(b, w)
	return work(b, client, server)
}

// openUDPOneWay is the same without an answer, ever: policies judge every datagram.
func openUDPOneWay(b *testing.B, w way) meter {
	b.Helper()
	client, server := udpSockets(b, w)
	return work(b, client, server)
}

func work(b *testing.B, client, server socket) meter {
	b.Helper()
	var received atomic.Int64
	pipe(b, client, server, func(fd int) { receive(fd, &received) })
	data := make([]byte, udpBlock)
	return func(d time.Duration) (float64, error) {
		goruntime.LockOSThread()
		defer goruntime.UnlockOSThread()
		before, err := threadTime()
		if err != nil {
			return 0, err
		}
		start, sent := time.Now(), 0
		for ; time.Since(start) < d; sent++ {
			if err := write(client.fd(), data); err != nil {
				return 0, fmt.Errorf("sending: %w", err)
			}
		}
		after, err := threadTime()
		drain(&received)
		return float64(sent) / (after - before).Seconds(), err
	}
}

// threadTime is how long the calling thread has been on a CPU.
func threadTime() (time.Duration, error) { return clock(unix.CLOCK_THREAD_CPUTIME_ID) }

// uptime is how long the machine has run.
func uptime() (time.Duration, error) { return clock(unix.CLOCK_MONOTONIC) }

func clock(id int32) (time.Duration, error) {
	var t unix.Timespec
	err := unix.ClockGettime(id, &t)
	return time.Duration(t.Nano()), err
}

// drain returns when nothing arrives any more, so that the next measurement has the machine to
// itself.
func drain(received *atomic.Int64) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for last := int64(-1); received.Load() != last; <-tick.C {
		last = received.Load()
	}
}

func openTCPRequest(b *testing.B, w way) meter {
	b.Helper()
	client, server := tcpPair(b, w)
	return requests(b, client, server)
}

func openUDPRequest(b *testing.B, w way) meter {
	b.Helper()
	client, server := udpPair(b, w)
	return requests(b, client, server)
}

// requests sends a byte when the last one has come back. The bytes are numbers, so that a late
// answer isn't taken for that of the next request.
func requests(b *testing.B, client, server socket) meter {
	b.Helper()
	pipe(b, client, server, func(fd int) {
		for buffer := make([]byte, 1); ; {
			if n, err := read(fd, buffer); n <= 0 || err != nil {
				return
			}
			if err := write(fd, buffer); err != nil {
				return
			}
		}
	})
	number := firstNumber
	return func(d time.Duration) (float64, error) {
		start, n := time.Now(), 0
		for ; time.Since(start) < d; n++ {
			number++
			if err := exchange(client.fd(), client.fd(), number); err != nil {
				return 0, err
			}
		}
		return float64(n) / time.Since(start).Seconds(), nil
	}
}

// exchange sends a number until it arrives, here or, sent back, where it came from.
func exchange(from, to int, number byte) error {
	for range asks {
		if err := write(from, []byte{number}); err != nil {
			return fmt.Errorf("asking: %w", err)
		}
		switch err := awaitNumber(to, number); {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("waiting for an answer: %w", err)
		}
	}
	return fmt.Errorf("asked %d times, each time without an answer in %d s", asks, lossTimeout.Sec)
}

// awaitNumber reads until a number comes. Those before it are late.
func awaitNumber(fd int, number byte) error {
	for buffer := make([]byte, 1); ; {
		switch n, err := read(fd, buffer); {
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		case buffer[0] == number:
			return nil
		}
	}
}

// openTCPConnect makes a new connection for each request: first packets are the ones that policies
// judge.
func openTCPConnect(b *testing.B, w way) meter {
	b.Helper()
	listener := listenTCP(b, w)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.CopyN(conn, conn, 1) // the client notices what is wrong
			_ = conn.Close()
		}
	})
	b.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return func(d time.Duration) (rate float64, err error) {
		err = w.client.Do(func() error { rate, err = connects(w, d); return err })
		return rate, err
	}
}

func connects(w way, d time.Duration) (float64, error) {
	target := net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.to, serverPort))
	start, buffer := time.Now(), make([]byte, 1)
	n := 0
	for ; time.Since(start) < d; n++ {
		conn, err := net.DialTCP("tcp", nil, target)
		if err != nil {
			return 0, err
		}
		_, writeErr := conn.Write(buffer)
		_, readErr := conn.Read(buffer)
		// A reset at the end: no port waits to be used again, here or in connection tracking.
		if err := errors.Join(writeErr, readErr, conn.SetLinger(0), conn.Close()); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}
