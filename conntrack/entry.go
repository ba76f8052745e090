package conntrack

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
)

// Entry is one connection.
type Entry struct {
	Orig, Reply Tuple
	Labels      Labels
	State       State

	// The entry's name for the kernel: its family, and the values of attributes, as they came.
	family  uint8  // unix.AF_INET or unix.AF_INET6
	rawOrig []byte // never empty, as that would name all entries
	rawZone []byte // nil: the default zone
	rawID   []byte
}

// Tuple is one direction of a connection.
type Tuple struct {
	Src, Dst         netip.Addr
	Proto            uint8  // IP protocol number
	SrcPort, DstPort uint16 // of protocols with ports
}

// name has the attributes that name the entry. Several entries can have the same name, one after
// the other.
func (e *Entry) name() []byte {
	name := attribute.Append(nil, nl.CTA_TUPLE_ORIG|unix.NLA_F_NESTED, e.rawOrig)
	if e.rawZone != nil {
		name = attribute.Append(name, nl.CTA_ZONE, e.rawZone)
	}
	return name
}

// places are the addresses of the entry.
func (e *Entry) places() map[place]netip.Addr {
	return map[place]netip.Addr{
		{nl.CTA_TUPLE_ORIG, source}:       e.Orig.Src,
		{nl.CTA_TUPLE_ORIG, destination}:  e.Orig.Dst,
		{nl.CTA_TUPLE_REPLY, source}:      e.Reply.Src,
		{nl.CTA_TUPLE_REPLY, destination}: e.Reply.Dst,
	}
}

// parseEntry reads a message that describes an entry: struct nfgenmsg and attributes. ok is false
// if it isn't one.
func parseEntry(m []byte) (e Entry, ok bool) {
	if len(m) < nl.SizeofNfgenmsg {
		return Entry{}, false
	}
	e.family = m[0]
	var status, protocol []byte
	for kind, value := range attribute.All(m[nl.SizeofNfgenmsg:]) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			e.Orig, e.rawOrig = parseTuple(value), value
		case nl.CTA_TUPLE_REPLY:
			e.Reply = parseTuple(value)
		case nl.CTA_ZONE:
			e.rawZone = value
		case nl.CTA_ID:
			e.rawID = value
		case nl.CTA_LABELS:
			copy(e.Labels[:], value)
		case nl.CTA_STATUS:
			status = value
		case nl.CTA_PROTOINFO:
			protocol = value
		}
	}
	e.State = stateOf(status, protocol)
	return e, e.Orig.Src.IsValid() && e.Orig.Dst.IsValid()
}

func parseTuple(data []byte) (t Tuple) {
	for kind, value := range attribute.All(data) {
		switch kind {
		case nl.CTA_TUPLE_IP:
			for kind, value := range attribute.All(value) {
				addr, _ := netip.AddrFromSlice(value)
				switch kind {
				case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
					t.Src = addr
				case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
					t.Dst = addr
				}
			}
		case nl.CTA_TUPLE_PROTO:
			for kind, value := range attribute.All(value) {
				switch {
				case kind == nl.CTA_PROTO_NUM && len(value) == 1:
					t.Proto = value[0]
				case kind == nl.CTA_PROTO_SRC_PORT && len(value) == 2:
					t.SrcPort = binary.BigEndian.Uint16(value)
				case kind == nl.CTA_PROTO_DST_PORT && len(value) == 2:
					t.DstPort = binary.BigEndian.Uint16(value)
				}
			}
		}
	}
	return t
}
