package wire

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/sluice-net/sluice/internal/nftsocket"
)

// Socket buffers. The kernel answers every message of a transaction with an acknowledgement that
// stays in the receive buffer until all are done; with the default size, 200 rules overflow it
// although all of them were applied.
const (
	readBuffer  = 64 << 20
	writeBuffer = 32 << 20
)

// grace is how much longer than its deadline a call may take until it is given up: a deadline ends
// the waiting for an answer, but not a system call that waits inside the kernel for somebody else's
// transaction.
const grace = 250 * time.Millisecond

// A Conn is one lasting connection. After any failed flush it must be closed: answers of the failed
// transaction may still come, or never.
type Conn struct {
	raw     nftsocket.Socket
	timeout time.Duration

	next     uint32            // sequence number of the next message
	messages []netlink.Message // the next transaction
	subjects []subject         // what its messages are about
	setID    uint32            // number of the last new set

	impatient bool // see dump

	TableFlags uint32 // those that the table is to have, unless it sleeps
}

// Dial connects to nftables in the network namespace of a file descriptor, or the calling thread's
// for 0. A transaction may take as long as timeout.
func Dial(dial nftsocket.Dialer, netNS int, timeout time.Duration) (*Conn, error) {
	raw, err := dial(netNS)
	if err != nil {
		return nil, err
	}
	tune(raw)
	c := &Conn{raw: raw, timeout: timeout}
	if _, err := c.generation(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// tune raises the buffers as far as the process may: beyond the system's limit only with
// CAP_NET_ADMIN in the initial user namespace.
func tune(raw nftsocket.Socket) {
	for size := readBuffer; raw.SetReadBuffer(size) != nil && size > 1<<16; size /= 2 {
		continue
	}
	for size := writeBuffer; raw.SetWriteBuffer(size) != nil && size > 1<<16; size /= 2 {
		continue
	}
	// It only makes errors more helpful; a kernel without it is fine.
	_ = raw.SetOption(netlink.ExtendedAcknowledge, true)
}

// Close disconnects. An owned table becomes an orphan.
func (c *Conn) Close() error { return c.raw.Close() }

// Flush sends what is queued as one transaction. The channel that it returns is closed when the
// socket isn't in use any more: later than the call's end only after a timeout.
func (c *Conn) Flush() (idle <-chan struct{}, err error) {
	messages, subjects := c.messages, c.subjects
	first := c.next + 1 // after the message that begins the batch
	c.messages, c.subjects = nil, nil
	c.next += uint32(len(subjects)) + 2
	idle, err = c.withDeadline(func() error { return c.send(messages) })
	if err != nil {
		return idle, flushError(err, first, messages, subjects)
	}
	return idle, nil
}

// withDeadline calls f, which uses the socket, and gives it up when it is overdue.
func (c *Conn) withDeadline(f func() error) (<-chan struct{}, error) {
	if err := c.raw.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return closed(), fmt.Errorf("setting a deadline: %w", err)
	}
	idle, result := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(idle)
		result <- f()
	}()
	timer := time.NewTimer(c.timeout + grace)
	defer timer.Stop()
	select {
	case err := <-result:
		<-idle
		if clearErr := c.raw.SetDeadline(time.Time{}); err == nil && clearErr != nil {
			err = fmt.Errorf("clearing the deadline: %w", clearErr)
		}
		return idle, err
	case <-timer.C:
		return idle, fmt.Errorf("%w: the kernel didn't take the transaction in time", errOverdue)
	}
}

// errOverdue says that a system call hasn't come back in time.
var errOverdue = errors.New("overdue")

func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
