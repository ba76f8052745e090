package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Capture is a capture of packets under way. Its methods may be called concurrently.
type Capture struct {
	match func(Packet) bool
	file  *os.File // the socket
	raw   syscall.RawConn
	done  chan struct{} // closed when nobody reads the socket any more

	mu      sync.Mutex
	packets []Packet
	more    chan struct{} // closed when there is another packet, and replaced
	err     error
}

const (
	captureBuffer = 64 << 20 // bytes that the kernel keeps until they are read
	captureFrame  = 64 << 10
)

// Start keeps the IP packets that a link of the current namespace sends and receives and that
// match; a nil match takes all. It has begun when this returns; Stop ends it.
func Start(link string, match func(Packet) bool) (*Capture, error) {
	if match == nil {
		match = func(Packet) bool { return true }
	}
	file, err := openCapture(link)
	if err != nil {
		return nil, err
	}
	c := &Capture{match: match, file: file, done: make(chan struct{}), more: make(chan struct{})}
	if c.raw, err = file.SyscallConn(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	go c.read()
	return c, nil
}

// openCapture opens a packet socket on a link of the current namespace.
func openCapture(link string) (*os.File, error) {
	device, err := net.InterfaceByName(link)
	if err != nil {
		return nil, err
	}
	// Protocol 0: nothing arrives before it is bound to the link.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer)
	if err == nil {
		const everything = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network byte order
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: device.Index})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("binding a packet socket to %s: %w", link, err),
			unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "capture on "+link), nil
}

// read takes packets until the socket is closed, or its reading is at its deadline and nothing is
// left.
func (c *Capture) read() {
	defer close(c.done)
	frame := make([]byte, captureFrame)
	for {
		var n int
		var from unix.Sockaddr
		var failure error
		err := c.raw.Read(func(fd uintptr) bool {
			n, from, failure = unix.Recvfrom(int(fd), frame, 0)
			return !errors.Is(failure, unix.EAGAIN)
		})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = c.drain(frame)
			c.fail(err)
			return
		}
		if errors.Is(failure, unix.ENETDOWN) { // the link went down, and may come up again
			continue
		}
		if err := errors.Join(err, failure); err != nil {
			c.fail(err)
			return
		}
		c.take(frame[:n], from)
	}
}

// drain takes what the kernel still has.
func (c *Capture) drain(frame []byte) error {
	var failure error
	err := c.raw.Control(func(fd uintptr) {
		for {
			n, from, err := unix.Recvfrom(int(fd), frame, 0)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if errors.Is(err, unix.ENETDOWN) {
				continue
			}
			if err != nil {
				failure = err
				return
			}
			c.take(frame[:n], from)
		}
		stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil && stats.Drops > 0 {
			err = fmt.Errorf("%d packets were lost", stats.Drops)
		}
		failure = err
	})
	return errors.Join(err, failure)
}

func (c *Capture) take(frame []byte, from unix.Sockaddr) {
	const headers = 256 // two of each
	packet, ok := parseFrame(slices.Clone(frame[:min(len(frame), headers)]))
	if !ok {
		return
	}
	packet.Time = time.Now()
	if link, ok := from.(*unix.SockaddrLinklayer); ok {
		packet.Outgoing = link.Pkttype == unix.PACKET_OUTGOING
	}
	if packet.VXLAN != nil && packet.VXLAN.Inner != nil {
		packet.VXLAN.Inner.Time, packet.VXLAN.Inner.Outgoing = packet.Time, packet.Outgoing
	}
	if !c.match(packet) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets = append(c.packets, packet)
	close(c.more)
	c.more = make(chan struct{})
}

func (c *Capture) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// Packets returns what was captured so far.
func (c *Capture) Packets() []Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.packets)
}

// Wait waits until n packets were captured and returns them, and any later ones.
func (c *Capture) Wait(ctx context.Context, n int) ([]Packet, error) {
	for {
		c.mu.Lock()
		packets, more := slices.Clone(c.packets), c.more
		c.mu.Unlock()
		if len(packets) >= n {
			return packets, nil
		}
		select {
		case <-more:
		case <-c.done:
			return packets, fmt.Errorf("%d packets were captured before the end, not %d",
				len(packets), n)
		case <-ctx.Done():
			return packets, fmt.Errorf("waiting for %d packets, with %d captured: %w", n,
				len(packets), context.Cause(ctx))
		}
	}
}

// Stop ends the capture and returns all of it: also what was sent or received a moment before. It
// is an error if any packet was lost. Called again, it returns the same.
func (c *Capture) Stop() ([]Packet, error) {
	err := c.file.SetReadDeadline(time.Unix(1, 0))
	<-c.done
	if errors.Is(err, os.ErrClosed) {
		err = nil // by an earlier call
	}
	if closeErr := c.file.Close(); !errors.Is(closeErr, os.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.packets), errors.Join(err, c.err)
}
