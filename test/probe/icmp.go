package probe

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"time"
)

const (
	icmpEcho4, icmpEchoReply4 = 8, 0     // RFC 792
	icmpEcho6, icmpEchoReply6 = 128, 129 // RFC 4443
	icmpHeaderLen             = 8
)

// connectICMP sends an echo request and returns the address that replied.
func connectICMP(dst netip.Addr, o options) (string, error) {
	deadline := time.Now().Add(o.timeout)
	network, wantType := "ip:1", byte(icmpEchoReply4)
	if dst.Is6() {
		network, wantType = "ip:58", icmpEchoReply6
	}
	source := netip.AddrPortFrom(o.source.Addr(), 0)
	conn, err := dial(network, netip.AddrPortFrom(dst, 0), source, deadline)
	if err != nil {
		return "", reason(err)
	}
	defer func() { _ = conn.Close() }()
	id := o.source.Port()
	if id == 0 {
		id = privatePort()
	}
	request := echoRequest(dst.Is6(), id)
	err = exchange(conn, deadline, request, func(answer []byte) bool {
		if dst.Is4() {
			answer = stripHeader4(answer)
		}
		// Behind type, code and checksum a reply is what the request was.
		return len(answer) >= icmpHeaderLen && answer[0] == wantType &&
			bytes.Equal(answer[4:], request[4:])
	})
	if err != nil {
		return "", err
	}
	return dst.String(), nil
}

// echoRequest is a request with a random payload. Over IPv6 the kernel fills in the checksum.
func echoRequest(is6 bool, id uint16) []byte {
	kind := byte(icmpEcho4)
	if is6 {
		kind = icmpEcho6
	}
	packet := []byte{kind, 0, 0, 0} // code and checksum
	packet = binary.BigEndian.AppendUint16(packet, id)
	packet = binary.BigEndian.AppendUint16(packet, 1) // sequence
	packet = append(packet, rand.Text()...)
	if !is6 {
		binary.BigEndian.PutUint16(packet[2:], foldChecksum(sum16(packet)))
	}
	return packet
}

// sum16 adds b up as big-endian 16-bit words, for the Internet checksum (RFC 1071).
func sum16(b []byte) uint32 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func foldChecksum(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
