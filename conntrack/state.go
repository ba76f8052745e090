package conntrack

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"

	"github.com/sluice-net/sluice/internal/attribute"
)

// State is how far a connection has come.
type State uint8

// The states. Those of TCP alone follow from its handshakes. Connections of other protocols, and
// TCP connections in an unknown state, are answered or not.
const (
	Unanswered  State = iota // the kernel takes its next packet for that of a new one
	Answered                 // packets have come both ways
	Opening                  // of TCP: answered, but not yet established
	Established              // of TCP
	Closing                  // of TCP: an end has sent its last byte
	Closed                   // of TCP: both have, or there was a reset; the entry stays for a while
)

// String is the state in a word.
func (s State) String() string {
	names := [...]string{"unanswered", "answered", "opening", "established", "closing", "closed"}
	if int(s) < len(names) {
		return names[s]
	}
	return "in an unknown state"
}

// GoesOn reports whether the connection is alive: its ends may send more, and the kernel takes that
// for packets of this connection.
func (s State) GoesOn() bool { return s == Answered || s == Opening || s == Established }

// seenReply is a bit of an entry's status (IPS_SEEN_REPLY).
const seenReply = 1 << 1

// stateOf reads the values of the attributes for status and protocol, which may be absent.
func stateOf(status, protocol []byte) State {
	if len(status) != 4 || binary.BigEndian.Uint32(status)&seenReply == 0 {
		return Unanswered
	}
	for kind, value := range attribute.All(protocol) {
		if kind != nl.CTA_PROTOINFO_TCP {
			continue
		}
		for kind, value := range attribute.All(value) {
			if kind == nl.CTA_PROTOINFO_TCP_STATE && len(value) == 1 {
				return tcpState(value[0])
			}
		}
	}
	return Answered
}

// tcpState translates the kernel's state of an answered TCP connection
// (linux/netfilter/nf_conntrack_tcp.h).
func tcpState(n byte) State {
	const synSent, synReceived, established, lastACK, timeWait, closed, synSent2 = 1, 2, 3,
		6, 7, 8, 9
	switch {
	case n == synSent || n == synReceived || n == synSent2:
		return Opening
	case n == established:
		return Established
	case n > established && n <= lastACK:
		return Closing
	case n == timeWait || n == closed:
		return Closed
	}
	return Answered
}
