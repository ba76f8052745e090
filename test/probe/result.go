package probe

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/sluice-net/sluice/test/stretch"
)

// Protocol is what a connection is made with.
type Protocol string

// The protocols that clients and servers speak.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	SCTP Protocol = "sctp"
	ICMP Protocol = "icmp" // echo, in the address's family
)

// Why a connection failed. A Result's Err wraps one of these.
var (
	// ErrTimeout: no answer of any kind, as when packets are dropped.
	ErrTimeout = errors.New("timeout")
	// ErrReset: the connection was refused or ended by a TCP reset, an SCTP abort, or an ICMP port
	// or protocol unreachable (for IPv6, unrecognized next header).
	ErrReset = errors.New("reset")
	// ErrUnreachable: there is no way to the destination, by an ICMP error or by the sender's own
	// routes.
	ErrUnreachable = errors.New("unreachable")
	// ErrNoReply: packets passed both ways (the TCP handshake was completed), but the server's line
	// didn't come.
	ErrNoReply = errors.New("no reply")
)

// Result is the outcome of one connection.
type Result struct {
	OK    bool
	Reply string // the server's line; for ICMP the address that answered
	Err   error  // why not, if not OK
}

// String is for failure messages.
func (r Result) String() string {
	if r.OK {
		return fmt.Sprintf("connect (%q)", r.Reply)
	}
	return r.Err.Error()
}

// Patience is how long Reach and Open go on trying unless Within says otherwise: a busy machine
// isn't a denial.
var Patience = stretch.By(5 * time.Second)

// DefaultTimeout is how long a connection waits for an answer before it counts as refused in
// silence.
const DefaultTimeout = 300 * time.Millisecond

// Option alters one connection.
type Option func(*options)

type options struct {
	timeout    time.Duration
	timeoutSet bool
	patience   time.Duration
	source     netip.AddrPort // zero address or port: the kernel's choice
}

// WithTimeout waits for an answer for d instead of DefaultTimeout.
func WithTimeout(d time.Duration) Option {
	return func(o *options) { o.timeout, o.timeoutSet = d, true }
}

// Within has Reach and Open try for d instead of 5 s.
func Within(d time.Duration) Option {
	return func(o *options) { o.patience = d }
}

// FromPort connects from this source port. ICMP has none: there it is the echo identifier.
func FromPort(port uint16) Option {
	return func(o *options) { o.source = netip.AddrPortFrom(o.source.Addr(), port) }
}

// FromAddr connects from this address, which must be one of the namespace.
func FromAddr(addr netip.Addr) Option {
	return func(o *options) { o.source = netip.AddrPortFrom(addr, o.source.Port()) }
}

func newOptions(opts []Option) options {
	o := options{timeout: DefaultTimeout, patience: Patience}
	for _, set := range opts {
		set(&o)
	}
	return o
}

// reason wraps err, from a socket, in the error that says what it means.
func reason(err error) error {
	var netErr net.Error
	switch {
	case isAny(err, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ENOPROTOOPT,
		syscall.EPROTO, io.EOF):
		return fmt.Errorf("%w: %w", ErrReset, err)
	case isAny(err, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES,
		syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	case errors.As(err, &netErr) && netErr.Timeout(),
		isAny(err, os.ErrDeadlineExceeded, syscall.EPERM):
		// EPERM is how a sender on the node learns of a drop in its own output hook.
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return err
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
