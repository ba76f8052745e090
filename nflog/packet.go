package nflog

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Packet has what the headers of an IP packet say.
type Packet struct {
	Source, Destination netip.Addr
	// Protocol is the transport protocol, behind IPv6 extension headers as far as they could be
	// followed (IANA protocol numbers).
	Protocol uint8
	// SourcePort and DestinationPort are those of TCP, UDP and SCTP; 0 where they aren't in the
	// packet.
	SourcePort, DestinationPort uint16
	// Type and Code are those of ICMP and ICMPv6.
	Type, Code uint8
	// Fragment is true for all fragments but the first, which alone has ports.
	Fragment bool
}

// IANA protocol numbers.
const (
	icmp   = 1
	tcp    = 6
	udp    = 17
	icmpv6 = 58
	sctp   = 132

	hopByHop           = 0
	routing            = 43
	fragment           = 44
	authentication     = 51
	destinationOptions = 60
)

// maxExtensions is the most IPv6 extension headers that are followed. A sender has use for five or
// six (RFC 8200, section 4.1).
const maxExtensions = 16

var errNoIP = errors.New("it is no IPv4 or IPv6 packet")

// parsePacket reads the beginning of an IP packet, which may end anywhere: fields behind the end
// are zero in the result. A packet without its addresses is an error. parsePacket doesn't check
// lengths and checksums: the kernel has done that, and the result doesn't depend on them.
func parsePacket(b []byte) (Packet, error) {
	if len(b) == 0 {
		return Packet{}, errNoIP
	}
	switch b[0] >> 4 {
	case 4:
		return parse4(b)
	case 6:
		return parse6(b)
	}
	return Packet{}, errNoIP
}

func parse4(b []byte) (Packet, error) {
	const smallest, offsetMask = 20, 0x1fff
	header := int(b[0]&0xf) * 4
	if header < smallest || len(b) < smallest {
		return Packet{}, errNoIP
	}
	p := Packet{
		Source: netip.AddrFrom4([4]byte(b[12:16])), Destination: netip.AddrFrom4([4]byte(b[16:20])),
		Protocol: b[9], Fragment: binary.BigEndian.Uint16(b[6:])&offsetMask != 0,
	}
	if len(b) > header {
		p.transport(b[header:])
	}
	return p, nil
}

func parse6(b []byte) (Packet, error) {
	const size = 40
	if len(b) < size {
		return Packet{}, errNoIP
	}
	p := Packet{Source: netip.AddrFrom16([16]byte(b[8:24])),
		Destination: netip.AddrFrom16([16]byte(b[24:40])), Protocol: b[6]}
	b = b[size:]
	for range maxExtensions {
		length := extension(p.Protocol, b)
		if length == 0 {
			p.transport(b)
			return p, nil
		}
		const smallest, offsetMask = 8, 0xfff8
		if len(b) < smallest {
			return p, nil
		}
		if p.Protocol == fragment {
			p.Fragment = binary.BigEndian.Uint16(b[2:])&offsetMask != 0
		}
		p.Protocol = b[0]
		if p.Fragment || len(b) < length { // what follows is no header, or isn't here
			return p, nil
		}
		b = b[length:]
	}
	return p, nil
}

// extension returns the length of an IPv6 extension header that begins b, or 0 where the protocol
// is none.
func extension(protocol uint8, b []byte) int {
	var units int
	if len(b) > 1 {
		units = int(b[1])
	}
	switch protocol {
	case hopByHop, routing, destinationOptions:
		return (units + 1) * 8
	case authentication: // RFC 4302, section 2.2
		return (units + 2) * 4
	case fragment:
		return 8
	}
	return 0
}

// transport reads the header behind the IP headers.
func (p *Packet) transport(b []byte) {
	if p.Fragment {
		return
	}
	switch p.Protocol {
	case tcp, udp, sctp:
		if len(b) >= 4 {
			p.SourcePort, p.DestinationPort = binary.BigEndian.Uint16(b),
				binary.BigEndian.Uint16(b[2:])
		}
	case icmp, icmpv6:
		if len(b) >= 2 {
			p.Type, p.Code = b[0], b[1]
		}
	}
}
