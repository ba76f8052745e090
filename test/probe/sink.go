package probe

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
	conn *net.UDPConn
	raw  syscall.RawConn
	done sync.WaitGroup

	mu       sync.Mutex // held while the socket is read, so that what is read is counted too
	received uint64
}

// NewSink opens a UDP port on every address of both families.
func NewSink(port uint16) (*Sink, error) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		return nil, fmt.Errorf("opening a sink on port %d: %w", port, err)
	}
	s := &Sink{conn: conn}
	s.raw, err = conn.SyscallConn()
	if err == nil {
		err = setOption(conn, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sinkBuffer)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("setting the receive buffer: %w", err), conn.Close())
	}
	s.done.Go(s.run)
	return s, nil
}

// Close ends the sink; what it has received stays known. Closing twice is no error.
func (s *Sink) Close() {
	_ = s.conn.Close()
	s.done.Wait()
}

// Received returns how many datagrams have arrived. What is in the socket at the moment of the call
// is counted; what overflowed its buffer isn't, so a large number is a lower bound, while 0 is
// exact.
func (s *Sink) Received() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A closed socket has nothing more to count.
	_ = s.raw.Control(func(fd uintptr) { s.drain(int(fd), sinkPackets) })
	return s.received
}

func (s *Sink) run() {
	const batch = 256 // then let Received have the lock
	for {
		err := s.raw.Read(func(fd uintptr) (done bool) {
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
