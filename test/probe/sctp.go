package probe

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/big"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// SCTP is spoken on raw sockets where the kernel has no SCTP sockets: of the handshake of RFC 9260
// only INIT and INIT ACK, with a correct checksum, which is what makes conntrack see a new flow and
// its reply.

const (
	sctpHeaderLen    = 12
	sctpInitLen      = 20 // chunk header and fixed fields, the same for INIT and INIT ACK
	sctpInit         = 1
	sctpInitAck      = 2
	sctpAbort        = 6
	sctpParamCookie  = 7
	sctpParamHeader  = 4
	firstPrivatePort = 32768
)

// sctpPacket is an SCTP packet with the one chunk this package speaks of.
type sctpPacket struct {
	source, dest uint16
	tag          uint32 // verification tag
	chunk        byte
	initTag      uint32 // INIT and INIT ACK: what the other end puts into tag
	cookie       string // INIT ACK
}

func (p sctpPacket) marshal() []byte {
	chunk := []byte{p.chunk, 0, 0, 4}
	if p.chunk != sctpAbort {
		chunk = binary.BigEndian.AppendUint32(chunk, p.initTag)
		chunk = binary.BigEndian.AppendUint32(chunk, 65536) // receiver window
		chunk = binary.BigEndian.AppendUint16(chunk, 1)     // outbound streams
		chunk = binary.BigEndian.AppendUint16(chunk, 1)     // inbound streams
		chunk = binary.BigEndian.AppendUint32(chunk, p.initTag)
	}
	if p.cookie != "" {
		chunk = binary.BigEndian.AppendUint16(chunk, sctpParamCookie)
		chunk = binary.BigEndian.AppendUint16(chunk, uint16(sctpParamHeader+len(p.cookie)))
		chunk = append(chunk, p.cookie...)
	}
	binary.BigEndian.PutUint16(chunk[2:], uint16(len(chunk))) // padding isn't counted
	chunk = append(chunk, make([]byte, -len(chunk)&3)...)

	packet := binary.BigEndian.AppendUint16(nil, p.source)
	packet = binary.BigEndian.AppendUint16(packet, p.dest)
	packet = binary.BigEndian.AppendUint32(packet, p.tag)
	packet = append(packet, 0, 0, 0, 0)
	packet = append(packet, chunk...)
	binary.LittleEndian.PutUint32(packet[8:], sctpChecksum(packet))
	return packet
}

// parseSCTP returns false for what isn't a whole packet with a good checksum.
func parseSCTP(b []byte) (sctpPacket, bool) {
	if len(b) < sctpHeaderLen+4 || binary.LittleEndian.Uint32(b[8:]) != sctpChecksum(b) {
		return sctpPacket{}, false
	}
	chunk := b[sctpHeaderLen:]
	p := sctpPacket{
		source: binary.BigEndian.Uint16(b),
		dest:   binary.BigEndian.Uint16(b[2:]),
		tag:    binary.BigEndian.Uint32(b[4:]),
		chunk:  chunk[0],
	}
	if p.chunk != sctpInit && p.chunk != sctpInitAck {
		return p, true
	}
	if len(chunk) < sctpInitLen {
		return sctpPacket{}, false
	}
	p.initTag = binary.BigEndian.Uint32(chunk[4:])
	param := chunk[sctpInitLen:]
	if len(param) > sctpParamHeader && binary.BigEndian.Uint16(param) == sctpParamCookie {
		end := int(binary.BigEndian.Uint16(param[2:]))
		if end >= sctpParamHeader && end <= len(param) {
			p.cookie = string(param[sctpParamHeader:end])
		}
	}
	return p, true
}

// sctpChecksum is the CRC32c of the packet with its checksum field zero.
func sctpChecksum(packet []byte) uint32 {
	packet = bytes.Clone(packet)
	clear(packet[8:12])
	return crc32.Checksum(packet, crc32.MakeTable(crc32.Castagnoli))
}

func connectSCTP(dst netip.AddrPort, o options) (string, error) {
	if HasSCTPSockets() {
		return connectSCTPSocket(dst, o)
	}
	deadline := time.Now().Add(o.timeout)
	conn, err := dial("ip:132", dst, o.source, deadline)
	if err != nil {
		return "", reason(err)
	}
	defer func() { _ = conn.Close() }()
	init := sctpPacket{source: o.source.Port(), dest: dst.Port(), chunk: sctpInit,
		initTag: randomUint32()}
	if init.source == 0 {
		init.source = privatePort()
	}
	var reply sctpPacket
	err = exchange(conn, deadline, init.marshal(), func(answer []byte) bool {
		if dst.Addr().Is4() {
			answer = stripHeader4(answer)
		}
		p, ok := parseSCTP(answer)
		reply = p
		return ok && p.source == init.dest && p.dest == init.source && p.tag == init.initTag
	})
	if err == nil && reply.chunk != sctpInitAck {
		err = fmt.Errorf("%w: SCTP chunk of type %d", ErrReset, reply.chunk)
	}
	if err != nil {
		return "", err
	}
	return reply.cookie, nil
}

// stripHeader4 removes the IPv4 header that raw sockets deliver.
func stripHeader4(packet []byte) []byte {
	if len(packet) == 0 {
		return nil
	}
	return packet[min(len(packet), int(packet[0]&15)*4):]
}

// lastPrivate is the last one that privatePort gave, counted from firstPrivatePort. It begins
// anywhere, as other processes have theirs.
var lastPrivate = sync.OnceValue(func() *atomic.Uint32 {
	var n atomic.Uint32
	n.Store(randomUint32())
	return &n
})

// privatePort is a source port, or an echo's identifier. They follow each other: one that repeats
// would belong to a connection that the kernel still knows, and what isn't allowed any more passed.
func privatePort() uint16 {
	return uint16(firstPrivatePort + lastPrivate().Add(1)%(65536-firstPrivatePort))
}

// randomUint32 is never zero, as a verification tag must not be.
func randomUint32() uint32 {
	n, err := rand.Int(rand.Reader, big.NewInt(1<<32-1))
	if err != nil {
		return 1 // the random reader doesn't fail
	}
	return uint32(n.Uint64()) + 1
}
