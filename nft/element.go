package nft

import (
	"encoding/binary"
	"net/netip"
)

// An Element is the key of a set member as the kernel stores it: bytes in network order, the fields
// of a concatenation each padded with zeros to a multiple of 4 bytes. It is comparable.
type Element struct {
	First string
	Last  string // the inclusive end of a range; empty unless the set is an interval set
}

// ifNameSize is the size of an interface name in the kernel (IFNAMSIZ).
const ifNameSize = 16

// AddrElement is the member of a set of addresses. IPv4-mapped IPv6 addresses count as IPv4.
func AddrElement(a netip.Addr) Element {
	return Element{First: string(a.Unmap().AsSlice())}
}

// RangeElement is the member of an interval set of addresses: first to last, both included, of one
// family.
func RangeElement(first, last netip.Addr) Element {
	return Element{First: string(first.Unmap().AsSlice()), Last: string(last.Unmap().AsSlice())}
}

// AddrIfaceElement is the member of a set keyed by address . interface name.
func AddrIfaceElement(a netip.Addr, iface string) Element {
	return Element{First: string(append(a.Unmap().AsSlice(), ifaceBytes(iface)...))}
}

// AddrPairElement is the member of a set keyed by two addresses of one family.
func AddrPairElement(a, b netip.Addr) Element {
	return Element{First: string(append(a.Unmap().AsSlice(), b.Unmap().AsSlice()...))}
}

// AddrIfacePairElement is the member of a set keyed by address . interface name . address, both of
// one family.
func AddrIfacePairElement(a netip.Addr, iface string, b netip.Addr) Element {
	return Element{First: AddrIfaceElement(a, iface).First + string(b.Unmap().AsSlice())}
}

// PortsElement is the member of an interval set keyed by destination port . protocol: the ports
// first to last, both included. The port comes first as it has the most masks in the kernel: some
// match wrongly where a later field has more than the first (docs/kernels.md, port-ranges).
func PortsElement(proto uint8, first, last uint16) Element {
	return Element{
		First: string(append(portBytes(first), protoBytes(proto)...)),
		Last:  string(append(portBytes(last), protoBytes(proto)...)),
	}
}

// ProtoPortElement is the member of a set keyed by protocol . destination port.
func ProtoPortElement(proto uint8, port uint16) Element {
	return Element{First: string(append(protoBytes(proto), portBytes(port)...))}
}

// AddrProtoPortElement is the member of a set keyed by address . protocol . destination port.
func AddrProtoPortElement(a netip.Addr, proto uint8, port uint16) Element {
	b := append(a.Unmap().AsSlice(), protoBytes(proto)...)
	return Element{First: string(append(b, portBytes(port)...))}
}

func ifaceBytes(name string) []byte {
	b := make([]byte, ifNameSize)
	copy(b[:ifNameSize-1], name)
	return b
}

func protoBytes(proto uint8) []byte { return []byte{proto, 0, 0, 0} }

func portBytes(port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(nil, port), 0, 0)
}
