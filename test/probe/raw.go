package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// SendRaw sends a packet that begins with its IPv4 or IPv6 header, as it is, to the destination the
// header names. Of an IPv4 header the kernel fills in the checksum, the length, and a zero
// identification. The source need not be one of the namespace.
func SendRaw(packet []byte) error {
	domain, to, err := rawDestination(packet)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("opening a raw socket: %w", os.NewSyscallError("socket", err))
	}
	err = os.NewSyscallError("sendto", unix.Sendto(fd, packet, 0, to))
	return errors.Join(err, os.NewSyscallError("close", unix.Close(fd)))
}

func rawDestination(packet []byte) (domain int, to unix.Sockaddr, err error) {
	switch {
	case len(packet) >= headerLen4 && packet[0]>>4 == 4:
		return unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])}, nil
	case len(packet) >= headerLen6 && packet[0]>>4 == 6:
		return unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte(packet[24:40])}, nil
	}
	return 0, nil, errors.New("neither an IPv4 nor an IPv6 packet")
}

// TCPFlags are the control bits of a TCP segment (RFC 9293).
type TCPFlags uint8

// The control bits.
const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// SendTCP sends one TCP segment without payload by SendRaw, out of any connection's context. If the
// answer comes to an address of the namespace, its kernel, which knows of no such connection,
// resets it.
func SendTCP(src, dst netip.AddrPort, flags TCPFlags, seq, ack uint32) error {
	if src.Addr().Is4() != dst.Addr().Is4() {
		return fmt.Errorf("no segment from %s to %s", src, dst)
	}
	segment := binary.BigEndian.AppendUint16(nil, src.Port())
	segment = binary.BigEndian.AppendUint16(segment, dst.Port())
	segment = binary.BigEndian.AppendUint32(segment, seq)
	segment = binary.BigEndian.AppendUint32(segment, ack)
	segment = append(segment, 5<<4, byte(flags)) // header length in words
	segment = binary.BigEndian.AppendUint16(segment, 65535)
	segment = append(segment, 0, 0, 0, 0) // checksum, urgent pointer

	sum := sum16(src.Addr().AsSlice()) + sum16(dst.Addr().AsSlice()) + unix.IPPROTO_TCP +
		uint32(len(segment)) + sum16(segment)
	binary.BigEndian.PutUint16(segment[16:], foldChecksum(sum))
	return SendRaw(append(ipHeader(src.Addr(), dst.Addr(), unix.IPPROTO_TCP, len(segment)),
		segment...))
}

// SendUDP sends one UDP datagram of a few bytes by SendRaw. The source need not be one of the
// namespace.
func SendUDP(src, dst netip.AddrPort) error {
	if src.Addr().Is4() != dst.Addr().Is4() {
		return fmt.Errorf("no datagram from %s to %s", src, dst)
	}
	payload := []byte("datagram")
	datagram := binary.BigEndian.AppendUint16(nil, src.Port())
	datagram = binary.BigEndian.AppendUint16(datagram, dst.Port())
	datagram = binary.BigEndian.AppendUint16(datagram, uint16(8+len(payload)))
	datagram = append(append(datagram, 0, 0), payload...)

	sum := sum16(src.Addr().AsSlice()) + sum16(dst.Addr().AsSlice()) + unix.IPPROTO_UDP +
		uint32(len(datagram)) + sum16(datagram)
	binary.BigEndian.PutUint16(datagram[6:], foldChecksum(sum))
	return SendRaw(append(ipHeader(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, len(datagram)),
		datagram...))
}

const headerLen4, headerLen6 = 20, 40

// ipHeader is the header of a packet with a payload of this protocol and length. SendRaw completes
// it.
func ipHeader(src, dst netip.Addr, protocol byte, length int) []byte {
	const hops = 64
	if src.Is4() {
		header := make([]byte, headerLen4)
		header[0] = 4<<4 | headerLen4/4
		binary.BigEndian.PutUint16(header[2:], uint16(headerLen4+length))
		header[8], header[9] = hops, protocol
		copy(header[12:], src.AsSlice())
		copy(header[16:], dst.AsSlice())
		return header
	}
	header := make([]byte, headerLen6)
	header[0] = 6 << 4
	binary.BigEndian.PutUint16(header[4:], uint16(length))
	header[6], header[7] = protocol, hops
	copy(header[8:], src.AsSlice())
	copy(header[24:], dst.AsSlice())
	return header
}
