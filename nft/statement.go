package nft

import (
	"net/netip"
	"slices"
)

// A Statement is one match or action of a rule. The types of this file and Foreign are all there
// are. They are values, never edited in place.
type Statement interface {
	// String is the statement as nft lists it, without the matches that nft leaves out because
	// others imply them.
	String() string
}

// MatchIface matches packets by the name of an interface. A Name that ends in "*" matches every
// interface whose name starts with what is before it.
type MatchIface struct {
	Field  Field // InIface or OutIface
	Name   string
	Others bool // matches all interfaces but those
}

// MatchAddr matches packets by one address.
type MatchAddr struct {
	Field Field // an address field of Addr's family
	Addr  netip.Addr
}

// MatchPrefix matches packets whose address is in a prefix. Host bits of the prefix don't count.
type MatchPrefix struct {
	Field  Field // an address field of Prefix's family
	Prefix netip.Prefix
}

// MatchProto matches packets by their transport protocol (an IANA number).
type MatchProto struct{ Proto uint8 }

// MatchPort matches packets of one transport protocol by destination port, First to Last, both
// included.
type MatchPort struct {
	Proto       uint8 // 6 TCP, 17 UDP, 132 SCTP: one with ports
	First, Last uint16
}

// CTState is a set of connection tracking states.
type CTState uint32

// The states, with the values of the kernel's ct expression.
const (
	CTInvalid     CTState = 1
	CTEstablished CTState = 2
	CTRelated     CTState = 4
	CTNew         CTState = 8
	CTUntracked   CTState = 64
)

// MatchCT matches packets whose connection is in any of the states.
type MatchCT struct{ State CTState }

// MatchND matches neighbour discovery: ICMPv6 types 133 to 137 with hop limit 255, which no router
// ever forwards (RFC 4861, section 11.2).
type MatchND struct{}

// MatchTCPNoSYN matches TCP segments without SYN: those that don't open a connection.
type MatchTCPNoSYN struct{}

// MatchLocalSrc matches packets whose source is an address of this node.
type MatchLocalSrc struct{}

// MatchLocalDst matches packets whose destination is an address of this node.
type MatchLocalDst struct{}

// MatchNoRouteBack matches packets whose source this node wouldn't reach through the interface that
// they came from: strict reverse path filtering (RFC 3704, section 2.2). A source that is the
// node's own matches, unless the node sends to itself. Packets that are sent without an address
// don't match: DHCP (0.0.0.0 to 255.255.255.255) and duplicate address detection. It belongs in
// chains at prerouting, input and forward.
type MatchNoRouteBack struct{}

// MatchRouteBack matches all packets that MatchNoRouteBack doesn't.
type MatchRouteBack struct{}

// MatchDNATed matches packets of connections whose destination was translated, by any rule of any
// table.
type MatchDNATed struct{}

// InSet matches packets whose fields, concatenated, are in the plain set.
type InSet struct {
	Fields []Field
	Set    string
}

// Dispatch looks the fields up in a verdict map and carries out the verdict. A packet without an
// entry goes on.
type Dispatch struct {
	Fields []Field
	Map    string
}

// DNAT looks the fields up in a NAT map and gives the connection the destination found there:
// address and port. L4Proto has to be one of the fields, since ports need a protocol. It belongs in
// NAT chains at prerouting and output. A packet without an entry, and one of the other IP version
// than the map's targets, goes on.
type DNAT struct {
	Fields []Field
	Map    string
}

// SNAT gives the connection the source address Addr, where the packet is of its IP version, and
// ends the rule; others go on. The port stays, if it can. It belongs in NAT chains at postrouting
// and input.
type SNAT struct{ Addr netip.Addr }

// Masquerade gives the connection the address of the interface that it leaves by as its source. It
// belongs in NAT chains at postrouting.
//
// With First, the source port is one of First to Last, both included. That is for protocols with
// ports only: a MatchProto of TCP, UDP or SCTP has to precede in the rule. Without it, a source
// port stays if it can.
type Masquerade struct {
	First, Last uint16 // 0: any port
	FullyRandom bool   // choose the port at random, even if the packet's own is free
}

// NoTrack takes packets out of connection tracking. It belongs in filter chains at prerouting and
// output with a priority below -200.
type NoTrack struct{}

// Count counts packets and bytes.
type Count struct{}

// Sample logs up to PerSecond packets each second (and a burst) to an NFLOG group. Over the limit
// the rule goes no further, so a verdict belongs in the next rule.
type Sample struct {
	Group     uint16
	Prefix    string
	PerSecond uint64
	Burst     uint32 // 0: the kernel's default, 5 packets
}

// DefaultBurst is what the kernel makes of a packet limit without a burst.
const DefaultBurst = 5

// Do ends the rule with a verdict.
type Do struct{ Verdict }

// ResetTCP answers TCP with a reset and drops the packet; other protocols don't match.
type ResetTCP struct{}

// equalStatements compares two statements; those with lists aren't comparable with ==.
func equalStatements(a, b Statement) bool {
	switch a := a.(type) {
	case InSet:
		b, ok := b.(InSet)
		return ok && a.Set == b.Set && slices.Equal(a.Fields, b.Fields)
	case Dispatch:
		b, ok := b.(Dispatch)
		return ok && a.Map == b.Map && slices.Equal(a.Fields, b.Fields)
	case DNAT:
		b, ok := b.(DNAT)
		return ok && a.Map == b.Map && slices.Equal(a.Fields, b.Fields)
	}
	switch b.(type) {
	case InSet, Dispatch, DNAT:
		return false
	}
	return a == b
}
