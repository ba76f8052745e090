package nflog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Options say what to read. The zero value reads group 0.
type Options struct {
	// Group is the NFLOG group.
	Group uint16
	// NetNS is a file descriptor of the network namespace, which is needed for Open only; 0 is the
	// calling thread's.
	NetNS int
}

// errTaken says that the group isn't available: another process reads it, or this one lacks
// CAP_NET_ADMIN. The kernel doesn't say which.
var errTaken = errors.New("another process reads the group, or CAP_NET_ADMIN is missing")

// A Reader reads a group alone: the kernel gives a group to one process at a time.
type Reader struct {
	conn  *netlink.Conn
	early []netlink.Message // came before Open was done
	next  uint32            // sequence number that comes next
}

// Messages, and attributes and values of a configuration (linux/netfilter/nfnetlink_log.h).
const (
	messagePacket = unix.NFNL_SUBSYS_ULOG << 8
	messageConfig = messagePacket | 1

	configCommand   = 1
	configMode      = 2
	configBuffer    = 3
	configThreshold = 5
	configFlags     = 6

	commandBind = 1
	copyPacket  = 2
	flagNumber  = 1
)

const (
	// copyRange is how much of a packet the kernel copies: an IPv6 header, more extension headers
	// than real packets have, and ports.
	copyRange = 256
	// kernelBuffer is how much the kernel allocates for a record.
	kernelBuffer = 1024
	// readBuffer holds the records that wait to be read, each with some overhead: several hundred.
	readBuffer = 1 << 20
	// openTimeout is longer than the kernel needs to answer.
	openTimeout = 10 * time.Second
)

// Open begins to read a group. The error wraps errTaken where another process reads it. The caller
// has to close the Reader.
func Open(opts Options) (*Reader, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: opts.NetNS})
	if err != nil {
		return nil, fmt.Errorf("connecting to NFLOG: %w", err)
	}
	r := &Reader{conn: conn}
	_ = conn.SetReadBuffer(readBuffer) // less will do
	if err := r.bind(opts.Group); err != nil {
		return nil,
			errors.Join(fmt.Errorf("binding NFLOG group %d: %w", opts.Group, err), conn.Close())
	}
	return r, nil
}

// Available is nil where the kernel can log to NFLOG groups; it loads the module where that is one.
// Other kernels also refuse rules that log. Available tries the group; a group that another process
// reads is fine.
func Available(opts Options) error {
	r, err := Open(opts)
	if errors.Is(err, errTaken) {
		return nil
	}
	if err != nil {
		return err
	}
	return r.Close()
}

// bind takes the group and sets its options, in one message: records may follow at once, even
// before the answer. Each record comes by itself: there are few, and none should wait for others.
func (r *Reader) bind(group uint16) error {
	be32 := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: configCommand, Data: []byte{commandBind}},
		{Type: configMode, Data: append(be32(copyRange), copyPacket, 0)},
		{Type: configBuffer, Data: be32(kernelBuffer)},
		{Type: configThreshold, Data: be32(1)},
		{Type: configFlags, Data: []byte{0, flagNumber}},
	})
	if err != nil {
		return err
	}
	header := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group)
	if err := r.conn.SetDeadline(time.Now().Add(openTimeout)); err != nil {
		return err
	}
	if _, err := r.conn.Send(netlink.Message{
		Header: netlink.Header{Type: messageConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(header, attrs...),
	}); err != nil {
		return err
	}
	for {
		messages, err := r.conn.Receive()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("%w (%w)", errTaken, err)
		}
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type == netlink.Error { // without an error: the acknowledgement
				return r.conn.SetDeadline(time.Time{})
			}
		}
		r.early = append(r.early, messages...)
	}
}

// Close releases the group.
func (r *Reader) Close() error {
	if err := r.conn.Close(); err != nil {
		return fmt.Errorf("closing the connection to NFLOG: %w", err)
	}
	return nil
}

// Run calls f for each record until ctx ends, which is no error. It must be called once, and f
// isn't called concurrently. Unreadable records are left out, and count as lost.
func (r *Reader) Run(ctx context.Context, f func(Record)) error {
	// a closed connection ends Run as well
	stop := context.AfterFunc(ctx, func() { _ = r.conn.SetReadDeadline(time.Now()) })
	defer stop()
	messages := r.early
	for {
		for _, m := range messages {
			r.take(m, f)
		}
		var err error
		messages, err = r.conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // too many at once; the numbers say how many
		case err != nil:
			return fmt.Errorf("reading NFLOG: %w", err)
		}
	}
}

func (r *Reader) take(m netlink.Message, f func(Record)) {
	if m.Header.Type != messagePacket {
		return
	}
	record, sequence, err := parseRecord(m.Data)
	if err != nil {
		return
	}
	record.Lost = sequence - r.next // numbers go round
	r.next = sequence + 1
	f(record)
}
