package testnet

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// sinkBuffer is what a sink's socket holds: a burst of some thousand packets.
const sinkBuffer = 8 << 20

// sinkPackets is more than fits into sinkBuffer, with what the kernel charges for each.
const sinkPackets = 1 << 16

// Sink counts the datagrams that arrive at a UDP port, and never answers.
type Sink struct {
	conn syscall.RawConn

	mu       sync.Mutex // held while the socket is read, so that what is read is counted too
	received uint64
}

// Sink opens a port on every address of both families, until the host ends. The protocol must be UDP.
func (h *Host) Sink(proto Protocol, port uint16) *Sink {
	h.t.Helper()
	if proto != UDP {
		h.t.Fatalf("%s: no sinks for %s", h.name, proto)
	}
	s := &Sink{}
	conn, err := h.listenSink(port)
	if err == nil {
		s.conn, err = conn.SyscallConn()
	}
	if err != nil {
		h.t.Fatalf("%s opening a sink on port %d: %v", h.name, port, err)
	}
	var done sync.WaitGroup
	done.Go(s.run)
	h.onStop(func() {
		_ = conn.Close()
		done.Wait()
	})
	return s
}

func (h *Host) listenSink(port uint16) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := setOption(conn, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sinkBuffer); err != nil {
		return nil, errors.Join(fmt.Errorf("setting the receive buffer: %w", err), conn.Close())
	}
	return conn, nil
}

// Received returns how many datagrams have arrived. What is in the socket at the moment of the call is counted; what overflowed
// its buffer isn't, so a large number is a lower bound, while 0 is exact.
func (s *Sink) Received() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A closed socket has nothing more to count.
	_ = s.conn.Control(func(fd uintptr) { s.drain(int(fd), sinkPackets) })
	return s.received
}

func (s *Sink) run() {
	const batch = 256 // then let Received have the lock
	for {
		err := s.conn.Read(func(fd uintptr) (done bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return !s.drain(int(fd), batch)
		})
		if err != nil {
			return // the socket is closed
		}
	}
}

// drain reads up to limit datagrams and says whether the socket is empty then.
func (s *Sink) drain(fd, limit int) (empty bool) {
	var buf [1]byte // the rest of a datagram is cut off
	for range limit {
		_, _, err := unix.Recvfrom(fd, buf[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return true
		case err == nil:
			s.received++
		}
	}
	return false
}
