package probe

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	// RFC 792, RFC 1191: a type and two of its codes
	icmpUnreachable4, icmpPort4, icmpTooBig4 = 3, 3, 4
	// RFC 4443: a type and its code, and another type
	icmpUnreachable6, icmpPort6, icmpTooBig6 = 1, 4, 2
)

// Quoted is the packet that an ICMP error is about: protocol TCP or UDP, as its sender sent it.
type Quoted struct {
	Protocol Protocol
	Src, Dst netip.AddrPort
}

// SendICMPError sends an ICMP error about a packet, by SendRaw: that its port is unreachable or,
// with an MTU, that it is too big for a link. Behind the quoted headers it has the payload, which
// is never read. Neither the error's source nor the quoted packet need be one of the namespace.
func SendICMPError(src, dst netip.Addr, about Quoted, mtu uint16, payload []byte) error {
	if src.Is4() != dst.Is4() || about.Src.Addr().Is4() != about.Dst.Addr().Is4() ||
		src.Is4() != about.Src.Addr().Is4() {
		return fmt.Errorf("no error from %s to %s about a packet from %s to %s", src, dst,
			about.Src, about.Dst)
	}
	protocol := byte(unix.IPPROTO_TCP)
	if about.Protocol == UDP {
		protocol = unix.IPPROTO_UDP
	}
	transport := binary.BigEndian.AppendUint16(nil, about.Src.Port())
	transport = binary.BigEndian.AppendUint16(transport, about.Dst.Port())
	// a length; or of TCP a sequence number
	transport = binary.BigEndian.AppendUint16(transport, uint16(8+len(payload)))
	transport = append(append(transport, 0, 0), payload...)
	quoted := append(ipHeader(about.Src.Addr(), about.Dst.Addr(), protocol, len(transport)),
		transport...)
	if src.Is4() {
		binary.BigEndian.PutUint16(quoted[10:], foldChecksum(sum16(quoted[:headerLen4])))
		packet := binary.BigEndian.AppendUint16(
			[]byte{icmpUnreachable4, icmpPort4, 0, 0, 0, 0}, mtu)
		if mtu != 0 {
			packet[1] = icmpTooBig4
		}
		packet = append(packet, quoted...)
		binary.BigEndian.PutUint16(packet[2:], foldChecksum(sum16(packet)))
		return SendRaw(append(ipHeader(src, dst, unix.IPPROTO_ICMP, len(packet)), packet...))
	}
	packet := binary.BigEndian.AppendUint16([]byte{icmpUnreachable6, icmpPort6, 0, 0, 0, 0}, mtu)
	if mtu != 0 {
		packet[0], packet[1] = icmpTooBig6, 0
	}
	packet = append(packet, quoted...)
	sum := sum16(src.AsSlice()) + sum16(dst.AsSlice()) + unix.IPPROTO_ICMPV6 + uint32(len(packet)) +
		sum16(packet)
	binary.BigEndian.PutUint16(packet[2:], foldChecksum(sum))
	return SendRaw(append(ipHeader(src, dst, unix.IPPROTO_ICMPV6, len(packet)), packet...))
}
