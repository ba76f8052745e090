package capture

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is what Capture says of an IP packet, from its headers. Of a fragment that isn't the
// first, ports are unknown.
type Packet struct {
	Time     time.Time
	Outgoing bool // sent by the host that the capture is on
	SrcMAC   net.HardwareAddr
	DstMAC   net.HardwareAddr

	Src, Dst netip.AddrPort // port 0 if the protocol has none
	// unix.IPPROTO_TCP, ...; of IPv6 the one behind fragment headers and options
	Protocol     uint8
	TTL          uint8 // or hop limit
	DontFragment bool  // IPv6 always has it
	// bytes of the IP packet; more than the MTU where the kernel leaves it to the link to cut
	// segments
	Length   int
	Fragment bool
	Checksum uint16 // of UDP; 0: none
	Flags    uint8  // of TCP, as in its header: FIN 1, SYN 2, RST 4, ACK 16

	VXLAN *VXLANHeader // of UDP to VXLANPort, else nil
}

// VXLANHeader is that of RFC 7348, and what it carries.
type VXLANHeader struct {
	VNI   uint32
	Inner *Packet // nil if it isn't IP, ARP for example
}

// VXLANPort is the port that makes Capture look into UDP: flannel's and the lab's.
const VXLANPort = 8472

// IsTCP says whether the packet is TCP, with these flags set among others.
func (p Packet) IsTCP(flags uint8) bool {
	return p.Protocol == unix.IPPROTO_TCP && p.Flags&flags == flags
}

// Innermost is the packet in the tunnel, or the packet itself.
func (p Packet) Innermost() Packet {
	if p.VXLAN != nil && p.VXLAN.Inner != nil {
		return *p.VXLAN.Inner
	}
	return p
}

// String is the packet in a line.
func (p Packet) String() string {
	protocol := map[uint8]string{
		unix.IPPROTO_TCP: "TCP", unix.IPPROTO_UDP: "UDP", unix.IPPROTO_SCTP: "SCTP",
		unix.IPPROTO_ICMP: "ICMP", unix.IPPROTO_ICMPV6: "ICMPv6",
	}[p.Protocol]
	if protocol == "" {
		protocol = fmt.Sprintf("protocol %d", p.Protocol)
	}
	text := fmt.Sprintf("%s > %s %s, %d bytes", p.Src, p.Dst, protocol, p.Length)
	if p.VXLAN != nil {
		text += fmt.Sprintf(", VXLAN %d", p.VXLAN.VNI)
		if p.VXLAN.Inner != nil {
			text += " [" + p.VXLAN.Inner.String() + "]"
		}
	}
	return text
}

const etherHeader = 14

// parseFrame reads an Ethernet frame. It isn't ok if that holds no whole IP header.
func parseFrame(frame []byte) (p Packet, ok bool) {
	if len(frame) < etherHeader {
		return Packet{}, false
	}
	p.DstMAC, p.SrcMAC = net.HardwareAddr(frame[:6]), net.HardwareAddr(frame[6:12])
	payload := frame[etherHeader:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		ok = p.parseIPv4(payload)
	case unix.ETH_P_IPV6:
		ok = p.parseIPv6(payload)
	}
	return p, ok
}

func (p *Packet) parseIPv4(b []byte) bool {
	const shortest = 20
	if len(b) < shortest {
		return false
	}
	header := int(b[0]&15) * 4
	p.Length = int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || header < shortest || len(b) < header {
		return false
	}
	const dontFragment, moreFragments, offset = 0x4000, 0x2000, 0x1fff
	fragment := binary.BigEndian.Uint16(b[6:])
	p.DontFragment = fragment&dontFragment != 0
	p.Fragment = fragment&(moreFragments|offset) != 0
	p.TTL, p.Protocol = b[8], b[9]
	p.setAddrs(netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])))
	if fragment&offset == 0 {
		p.parseTransport(b[header:])
	}
	return true
}

func (p *Packet) parseIPv6(b []byte) bool {
	const header = 40
	if len(b) < header || b[0]>>4 != 6 {
		return false
	}
	p.Length = header + int(binary.BigEndian.Uint16(b[4:]))
	p.Protocol, p.TTL, p.DontFragment = b[6], b[7], true
	p.setAddrs(netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])))
	rest := b[header:]
	for {
		switch p.Protocol {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			if len(rest) < 8 || len(rest) < 8+int(rest[1])*8 {
				return true
			}
			p.Protocol, rest = rest[0], rest[8+int(rest[1])*8:]
		case unix.IPPROTO_FRAGMENT:
			if len(rest) < 8 {
				return true
			}
			p.Fragment, p.Protocol = true, rest[0]
			if binary.BigEndian.Uint16(rest[2:])&^7 != 0 { // not the first
				return true
			}
			rest = rest[8:]
		default:
			p.parseTransport(rest)
			return true
		}
	}
}

func (p *Packet) setAddrs(src, dst netip.Addr) {
	p.Src, p.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
}

func (p *Packet) parseTransport(b []byte) {
	if p.Protocol != unix.IPPROTO_TCP && p.Protocol != unix.IPPROTO_UDP &&
		p.Protocol != unix.IPPROTO_SCTP ||
		len(b) < 8 {
		return
	}
	p.Src = netip.AddrPortFrom(p.Src.Addr(), binary.BigEndian.Uint16(b))
	p.Dst = netip.AddrPortFrom(p.Dst.Addr(), binary.BigEndian.Uint16(b[2:]))
	switch p.Protocol {
	case unix.IPPROTO_TCP:
		if len(b) > 13 {
			p.Flags = b[13]
		}
	case unix.IPPROTO_UDP:
		p.Checksum = binary.BigEndian.Uint16(b[6:])
		if p.Dst.Port() == VXLANPort {
			p.parseVXLAN(b[8:])
		}
	}
}

func (p *Packet) parseVXLAN(b []byte) {
	const header, validVNI = 8, 0x08
	if len(b) < header || b[0]&validVNI == 0 {
		return
	}
	p.VXLAN = &VXLANHeader{VNI: binary.BigEndian.Uint32(b[4:]) >> 8}
	if inner, ok := parseFrame(b[header:]); ok {
		p.VXLAN.Inner = &inner
	}
}
