package testnet

import (
	"net/netip"
	"time"

	"github.com/sluice-net/sluice/test/probe"
)

// What package probe speaks of, under the names that tests use with hosts.
type (
	// Protocol is what a connection is made with.
	Protocol = probe.Protocol
	// Result is the outcome of one connection.
	Result = probe.Result
	// Option alters one connection.
	Option = probe.Option
	// Flow is a lasting connection. It isn't safe for concurrent use.
	Flow = probe.Flow
	// Sink counts the datagrams that arrive at a UDP port, and never answers.
	Sink = probe.Sink
	// FloodOption alters a flood.
	FloodOption = probe.FloodOption
	// Quoted is the packet that an ICMP error is about.
	Quoted = probe.Quoted
	// TCPFlags are the control bits of a TCP segment.
	TCPFlags = probe.TCPFlags
)

// The protocols that hosts speak.
const (
	TCP  = probe.TCP
	UDP  = probe.UDP
	SCTP = probe.SCTP
	ICMP = probe.ICMP
)

// The control bits of TCP.
const (
	FIN = probe.FIN
	SYN = probe.SYN
	RST = probe.RST
	PSH = probe.PSH
	ACK = probe.ACK
	URG = probe.URG
)

// DefaultTimeout is how long a connection waits for an answer before it counts as refused in
// silence.
const DefaultTimeout = probe.DefaultTimeout

// patience is how long MustReach and Open go on trying unless Within says otherwise.
var patience = probe.Patience

// Why a connection failed, see package probe.
var (
	ErrTimeout     = probe.ErrTimeout
	ErrReset       = probe.ErrReset
	ErrUnreachable = probe.ErrUnreachable
	ErrNoReply     = probe.ErrNoReply
)

// WithTimeout waits for an answer for d instead of DefaultTimeout.
func WithTimeout(d time.Duration) Option { return probe.WithTimeout(d) }

// Within has MustReach and Open try for d instead of 5 s.
func Within(d time.Duration) Option { return probe.Within(d) }

// FromPort connects from this source port. ICMP has none: there it is the echo identifier.
func FromPort(port uint16) Option { return probe.FromPort(port) }

// FromAddr connects from this address, which must be the host's.
func FromAddr(addr netip.Addr) Option { return probe.FromAddr(addr) }

// OnCPU binds a flood's thread to one CPU, counted from 0.
func OnCPU(cpu int) FloodOption { return probe.OnCPU(cpu) }

// SendRaw sends a packet that begins with its IPv4 or IPv6 header, as probe.SendRaw does.
func (h *Host) SendRaw(packet []byte) error {
	return h.Do(func() error { return probe.SendRaw(packet) })
}

// SendTCP sends one TCP segment without payload, out of any connection's context, as probe.SendTCP
// does.
func (h *Host) SendTCP(src, dst netip.AddrPort, flags TCPFlags, seq, ack uint32) error {
	return h.Do(func() error { return probe.SendTCP(src, dst, flags, seq, ack) })
}

// SendUDP sends one UDP datagram of a few bytes, as probe.SendUDP does. The source need not be the
// host's.
func (h *Host) SendUDP(src, dst netip.AddrPort) error {
	return h.Do(func() error { return probe.SendUDP(src, dst) })
}

// SendICMPError sends an ICMP error about any packet, as probe.SendICMPError does.
func (h *Host) SendICMPError(src, dst netip.Addr, about Quoted, mtu uint16, payload []byte) error {
	return h.Do(func() error { return probe.SendICMPError(src, dst, about, mtu, payload) })
}
