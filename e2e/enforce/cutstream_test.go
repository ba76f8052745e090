package enforce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/probe"
	"github.com/sluice-net/sluice/test/stretch"
)

// stream is a connection over which both ends send a byte every 2 ms.
type stream struct {
	w    *world
	what string
	tcp  bool
	// arrived says when the last byte came to the server and to the client, in ns since 1970.
	arrived [2]atomic.Int64
	// reset says which of them got a reset.
	reset [2]atomic.Bool
}

// streamPort is the first port of streams; each has one of its own.
const streamPort = 7000

var streamPorts atomic.Uint32

// stream opens a connection and waits until bytes have come both ways. It ends with the test.
func (w *world) stream(f cases.Flow, family int) *stream {
	w.t.Helper()
	s := &stream{w: w, what: fmt.Sprintf("%s > %s %s IPv%d", f.From, f.To, f.Protocol, family),
		tcp: probe.Protocol(f.Protocol) == probe.TCP}
	at := netip.AddrPortFrom(w.addr(f.To, f.From, family), streamPort+uint16(streamPorts.Add(1)))
	var listener net.Listener
	var packets *net.UDPConn
	w.must(w.Do(w.place(f.To, f.From), func() (err error) {
		if s.tcp {
			listener, err = net.Listen("tcp", at.String())
		} else {
			packets, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		}
		return err
	}))
	var client net.Conn
	w.must(w.Do(w.place(f.From, f.To), func() (err error) {
		dialer, network := net.Dialer{Timeout: settleTime}, "udp"
		if s.tcp {
			network = "tcp"
		}
		client, err = dialer.Dial(network, at.String())
		return err
	}))
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(func() { cancel(); _ = client.Close() })
	go s.send(ctx, 1, func(b []byte) error { _, err := client.Write(b); return err })
	go s.receive(1, client)
	// The server answers where it is asked from, which may be a node's address, and only then: the
	// client has to be the one who opens.
	var server net.Conn = packets
	write := func(b []byte) error { _, err := server.Write(b); return err }
	if s.tcp {
		var err error
		server, err = listener.Accept()
		w.must(errors.Join(err, listener.Close()))
	} else {
		w.must(packets.SetReadDeadline(time.Now().Add(settleTime)))
		_, peer, err := packets.ReadFrom(make([]byte, 1))
		w.must(errors.Join(err, packets.SetReadDeadline(time.Time{})))
		write = func(b []byte) error { _, err := packets.WriteTo(b, peer); return err }
	}
	w.t.Cleanup(func() { _ = server.Close() })
	go s.send(ctx, 0, write)
	go s.receive(0, server)
	w.eventually(s.what, func() bool {
		return s.arrived[0].Load() != 0 && s.arrived[1].Load() != 0
	})
	return s
}

// send sends for the end that receives as number i, until a reset.
func (s *stream) send(ctx context.Context, i int, write func([]byte) error) {
	tick := time.NewTicker(stretch.By(2 * time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := write([]byte("x"))
		if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			s.reset[i].Store(true)
			return
		}
	}
}

func (s *stream) receive(i int, c net.Conn) {
	buffer := make([]byte, 1<<16)
	for {
		n, err := c.Read(buffer)
		if n > 0 {
			s.arrived[i].Store(time.Now().UnixNano())
		}
		if errors.Is(err, syscall.ECONNRESET) {
			s.reset[i].Store(true)
		}
		if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
	}
}

// last is when the last byte arrived at either end.
func (s *stream) last() time.Time {
	return time.Unix(0, max(s.arrived[0].Load(), s.arrived[1].Load()))
}

// ended waits until no byte has come for a while, and returns when the last one did.
func (s *stream) ended() time.Time {
	s.w.t.Helper()
	const enough = 400 * time.Millisecond
	s.w.eventually("the end of "+s.what, func() bool { return time.Since(s.last()) > enough })
	if s.tcp {
		s.w.eventually("resets to both ends of "+s.what, func() bool {
			return s.reset[0].Load() && s.reset[1].Load()
		})
	}
	return s.last()
}

// goesOn demands that bytes come to both ends.
func (s *stream) goesOn() {
	s.w.t.Helper()
	since := time.Now().UnixNano()
	s.w.eventually(s.what+" to go on", func() bool {
		return s.arrived[0].Load() > since && s.arrived[1].Load() > since
	})
}
