package reach

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/link"
)

// The layout of an ARP packet for IPv4 over Ethernet in its frame (RFC 826).
const (
	macLen      = 6
	frameHeader = 2*macLen + 2
	arpLen      = 28
	arpOp       = frameHeader + 6
	arpSender   = frameHeader + 8
	arpTarget   = arpSender + macLen + 4

	arpRequest, arpReply = 1, 2
)

// arpHeader is Ethernet and IPv4 with their addresses' lengths.
var arpHeader = []byte{0, 1, 8, 0, macLen, 4}

// arpQuestion is the frame that asks a peer for its address.
func arpQuestion(own link.MAC, to Peer) []byte {
	f := append(append([]byte(nil), to.MAC[:]...), own[:]...)
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_ARP)
	f = append(f, arpHeader...)
	f = binary.BigEndian.AppendUint16(f, arpRequest)
	f = append(append(f, own[:]...), 0, 0, 0, 0)
	f = append(f, make([]byte, macLen)...)
	return append(f, to.Addr.AsSlice()...)
}

// arpAnswer reads a frame that answers an arpQuestion; ok is false for others.
func arpAnswer(own link.MAC, f []byte) (a Answer, ok bool) {
	if len(f) < frameHeader+arpLen {
		return Answer{}, false
	}
	sender := f[arpSender : arpSender+macLen]
	var asked [macLen + 4]byte // as the question has its sender
	copy(asked[:], own[:])
	ok = bytes.Equal(f[:macLen], own[:]) && bytes.Equal(f[macLen:2*macLen], sender) &&
		binary.BigEndian.Uint16(f[2*macLen:]) == unix.ETH_P_ARP &&
		bytes.HasPrefix(f[frameHeader:], arpHeader) &&
		binary.BigEndian.Uint16(f[arpOp:]) == arpReply &&
		bytes.Equal(f[arpTarget:arpTarget+len(asked)], asked[:])
	addr, _ := netip.AddrFromSlice(f[arpSender+macLen : arpTarget])
	return Answer{Addr: addr, MAC: link.MAC(sender)}, ok
}

// The layout of neighbour solicitations and advertisements (RFC 4861, sections 4.3 and 4.4).
const (
	solicitation, advertisement = 135, 136

	ndHeader    = 8 // type, code, checksum, flags
	ndLen       = ndHeader + 16
	ndFlags     = 4
	ndSolicited = 0x40
	ndHopLimit  = 255 // a forwarded packet has less
)

// ndQuestion is the ICMPv6 message that asks a peer for its address. The kernel fills in the
// checksum.
func ndQuestion(to Peer) []byte {
	return append([]byte{ndHeader - 1: 0, 0: solicitation}, to.Addr.AsSlice()...)
}

// ndAnswer reads an ICMPv6 message that answers an ndQuestion; ok is false for others.
func ndAnswer(from netip.Addr, hopLimit int, m []byte) (a Answer, ok bool) {
	if len(m) < ndLen || m[0] != advertisement || m[1] != 0 || m[ndFlags]&ndSolicited == 0 ||
		hopLimit != ndHopLimit {
		return Answer{}, false
	}
	target, _ := netip.AddrFromSlice(m[ndHeader:ndLen])
	return Answer{Addr: target}, target == from
}
