package cni

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// connection is one entry of connection tracking.
type connection struct {
	family      uint8 // unix.AF_INET or unix.AF_INET6
	orig, reply connTuple

	// What names the entry to the kernel: the values of two attributes, as they came.
	rawOrig []byte // never empty, as that would name all entries
	rawZone []byte // nil: the default zone
}

// name is the attributes that name the entry.
func (c connection) name() []byte {
	name := appendAttribute(nil, nl.CTA_TUPLE_ORIG|unix.NLA_F_NESTED, c.rawOrig)
	if c.rawZone != nil {
		name = appendAttribute(name, nl.CTA_ZONE, c.rawZone)
	}
	return name
}

// connTuple is one direction of a connection.
type connTuple struct {
	src, dst netip.Addr
	proto    uint8
	dstPort  uint16 // of protocols with ports
}

// parseConnection reads a message that describes an entry: struct nfgenmsg and attributes. What can't be one is not ok.
func parseConnection(m []byte) (c connection, ok bool) {
	if len(m) < nl.SizeofNfgenmsg {
		return connection{}, false
	}
	c.family = m[0]
	for kind, value := range attributes(m[nl.SizeofNfgenmsg:]) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			c.orig, c.rawOrig = parseTuple(value), value
		case nl.CTA_TUPLE_REPLY:
			c.reply = parseTuple(value)
		case nl.CTA_ZONE:
			c.rawZone = value
		}
	}
	return c, c.orig.src.IsValid() && c.orig.dst.IsValid()
}

func parseTuple(data []byte) (t connTuple) {
	for kind, value := range attributes(data) {
		switch kind {
		case nl.CTA_TUPLE_IP:
			for kind, value := range attributes(value) {
				addr, _ := netip.AddrFromSlice(value)
				switch kind {
				case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
					t.src = addr
				case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
					t.dst = addr
				}
			}
		case nl.CTA_TUPLE_PROTO:
			for kind, value := range attributes(value) {
				switch {
				case kind == nl.CTA_PROTO_NUM && len(value) == 1:
					t.proto = value[0]
				case kind == nl.CTA_PROTO_DST_PORT && len(value) == 2:
					t.dstPort = binary.BigEndian.Uint16(value)
				}
			}
		}
	}
	return t
}

// attributes are the netlink attributes in data, by type without flags. What is cut short ends them.
func attributes(data []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(data) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(data))
			kind := binary.NativeEndian.Uint16(data[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if length < unix.SizeofNlAttr || length > len(data) || !yield(kind, data[unix.SizeofNlAttr:length]) {
				return
			}
			data = data[min(len(data), alignAttribute(length)):]
		}
	}
}

func appendAttribute(to []byte, kind uint16, value []byte) []byte {
	length := unix.SizeofNlAttr + len(value)
	to = binary.NativeEndian.AppendUint16(to, uint16(length)) //nolint:gosec // as long as it was in a message
	to = binary.NativeEndian.AppendUint16(to, kind)
	to = append(to, value...)
	return append(to, make([]byte, alignAttribute(length)-length)...)
}

func alignAttribute(length int) int { return (length + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }
