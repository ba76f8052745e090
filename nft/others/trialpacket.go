package others

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

const (
	tokenLen = 16

	// hops is enough for one router, so that no packet loops.
	hops = 2

	headerLenUDP = 8
	discardPort  = 9 // RFC 863

	// firstDynamicPort begins the range of the source port, which is random, from the dynamic range
	// (RFC 6335), so that no earlier trial's packet is taken for this one.
	firstDynamicPort = 49152
)

// packetSocket opens a raw socket on a link that gets all packets of a protocol, or with 0 none. It
// waits repeatAfter for one.
func packetSocket(link int, protocol uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening a packet socket: %w", os.NewSyscallError("socket", err))
	}
	network := binary.BigEndian.AppendUint16(nil, protocol)
	err = os.NewSyscallError("bind",
		unix.Bind(fd,
			&unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(network), Ifindex: link}))
	if err == nil {
		wait := unix.NsecToTimeval(repeatAfter.Nanoseconds())
		err = os.NewSyscallError("setsockopt",
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("preparing a packet socket: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// send sends a frame. It is no error if the link has no room or isn't up yet: the frame is repeated
// later.
func send(socket int, frame []byte) error {
	_, err := unix.Write(socket, frame)
	if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sending a packet: %w", os.NewSyscallError("write", err))
	}
	return nil
}

// frame is an Ethernet frame to a MAC address with a UDP packet that has token as its payload.
func frame(p Path, to net.HardwareAddr, token []byte) []byte {
	f := append([]byte(nil), to...)
	f = append(f, noLink()...)
	datagram := udp(p, token)
	if p.Source.Is4() {
		f = binary.BigEndian.AppendUint16(f, unix.ETH_P_IP)
		f = append(f, ipv4(p, len(datagram))...)
	} else {
		f = binary.BigEndian.AppendUint16(f, unix.ETH_P_IPV6)
		f = append(f, ipv6(p, len(datagram))...)
	}
	return append(f, datagram...)
}

// udp is a UDP datagram with its checksum, which conntrack looks at (RFC 768, RFC 8200 section
// 8.1).
func udp(p Path, payload []byte) []byte {
	length := headerLenUDP + len(payload)
	source := firstDynamicPort | binary.BigEndian.Uint16(payload)
	d := binary.BigEndian.AppendUint16(nil, source)
	d = binary.BigEndian.AppendUint16(d, discardPort)
	d = binary.BigEndian.AppendUint16(d, uint16(length))
	d = append(append(d, 0, 0), payload...)
	pseudo := append(p.Source.AsSlice(), p.Destination.AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_UDP)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(length))
	sum := checksum(append(pseudo, d...))
	if sum == 0 {
		sum = 0xffff // 0 means that there is none
	}
	binary.BigEndian.PutUint16(d[6:], sum)
	return d
}

// ipv4 is the header of a UDP packet (RFC 791).
func ipv4(p Path, length int) []byte {
	const headerLen = 20
	h := []byte{4<<4 | headerLen/4, 0}
	h = binary.BigEndian.AppendUint16(h, uint16(headerLen+length))
	h = append(h, 0, 0, 0, 0, hops, unix.IPPROTO_UDP, 0, 0)
	h = append(append(h, p.Source.AsSlice()...), p.Destination.AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return h
}

// ipv6 is the header of a UDP packet (RFC 8200).
func ipv6(p Path, length int) []byte {
	h := []byte{6 << 4, 0, 0, 0}
	h = binary.BigEndian.AppendUint16(h, uint16(length))
	h = append(h, unix.IPPROTO_UDP, hops)
	return append(append(h, p.Source.AsSlice()...), p.Destination.AsSlice()...)
}

// checksum is the Internet checksum of an even number of bytes (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// host is the prefix of an address alone.
func host(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }
