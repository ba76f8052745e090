package security

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

const tunnelPort, tunnelVNI = 8472, 1

// datagram is a UDP packet with its IP header.
func datagram(src, dst netip.AddrPort, payload []byte) []byte {
	udp := binary.BigEndian.AppendUint16(nil, src.Port())
	udp = binary.BigEndian.AppendUint16(udp, dst.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(append(udp, 0, 0), payload...)
	binary.BigEndian.PutUint16(udp[6:],
		checksum(pseudoHeader(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, len(udp)), udp))
	return append(ipHeader(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, 64, len(udp)), udp...)
}

// ipHeader is the header of a packet with a payload of this protocol and length.
func ipHeader(src, dst netip.Addr, protocol, hops byte, length int) []byte {
	if src.Is6() {
		header := make([]byte, 40)
		header[0], header[6], header[7] = 6<<4, protocol, hops
		binary.BigEndian.PutUint16(header[4:], uint16(length))
		copy(header[8:], src.AsSlice())
		copy(header[24:], dst.AsSlice())
		return header
	}
	header := make([]byte, 20)
	header[0], header[8], header[9] = 4<<4|5, hops, protocol
	binary.BigEndian.PutUint16(header[2:], uint16(20+length))
	copy(header[12:], src.AsSlice())
	copy(header[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return header
}

// pseudoHeader is what checksums of transport protocols cover besides.
func pseudoHeader(src, dst netip.Addr, protocol byte, length int) []byte {
	header := append(src.AsSlice(), dst.AsSlice()...)
	return append(header, 0, 0, byte(length>>8), byte(length), 0, 0, 0, protocol)
}

// checksum is that of the Internet (RFC 1071) over parts of even length, but for the last.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// inTunnel is the payload that carries a packet to the tunnel device of this MAC (RFC 7348).
func inTunnel(to net.HardwareAddr, packet []byte) []byte {
	payload := []byte{0x08, 0, 0, 0, 0, 0, tunnelVNI, 0}
	kind := uint16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	return append(append(payload, etherHeader(to, net.HardwareAddr{2, 0, 0, 0, 0, 1}, kind)...),
		packet...)
}

func etherHeader(to, from net.HardwareAddr, kind uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append([]byte{}, to...), from...), kind)
}

// arpRequest asks who has target, and says that sender is at the MAC (RFC 826).
func arpRequest(to, mac net.HardwareAddr, sender, target netip.Addr) []byte {
	frame := etherHeader(to, mac, unix.ETH_P_ARP)
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(append(frame, mac...), sender.AsSlice()...)
	return append(append(frame, 0, 0, 0, 0, 0, 0), target.AsSlice()...)
}

// solicitation is the same for IPv6 (RFC 4861, section 4.3).
func solicitation(to, mac net.HardwareAddr, sender, target netip.Addr) []byte {
	message := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	return icmp6(to, mac, sender, target, append(append(message, 1, 1), mac...))
}

// advertisement says unasked that addr is at the MAC, and that it overrides what was known (RFC
// 4861, section 4.4).
func advertisement(to, mac net.HardwareAddr, addr, target netip.Addr) []byte {
	message := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, addr.AsSlice()...)
	return icmp6(to, mac, addr, target, append(append(message, 2, 1), mac...))
}

// echoRequest asks for an answer (RFC 4443).
func echoRequest(to, mac net.HardwareAddr, sender, target netip.Addr) []byte {
	return icmp6(to, mac, sender, target, []byte{128, 0, 0, 0, 0, 1, 0, 1})
}

// icmp6 is a frame with a message whose checksum is missing.
func icmp6(to, mac net.HardwareAddr, src, dst netip.Addr, message []byte) []byte {
	binary.BigEndian.PutUint16(message[2:],
		checksum(pseudoHeader(src, dst, unix.IPPROTO_ICMPV6, len(message)), message))
	frame := etherHeader(to, mac, unix.ETH_P_IPV6)
	return append(append(frame, ipHeader(src, dst, unix.IPPROTO_ICMPV6, 255, len(message))...),
		message...)
}
