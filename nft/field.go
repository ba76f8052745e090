package nft

import "github.com/google/nftables"

// A Field is a part of a packet that rules match and sets are keyed by.
type Field uint8

// The fields. The digit is the IP version.
const (
	SrcAddr4 Field = iota + 1
	SrcAddr6
	DstAddr4
	DstAddr6
	InIface
	OutIface
	L4Proto
	DstPort

	// foreignField stands for a key type of a set that isn't ours.
	foreignField
)

// datatype is the nftables type of the field; invalid for foreign ones.
func (f Field) datatype() nftables.SetDatatype {
	switch f {
	case SrcAddr4, DstAddr4:
		return nftables.TypeIPAddr
	case SrcAddr6, DstAddr6:
		return nftables.TypeIP6Addr
	case InIface, OutIface:
		return nftables.TypeIFName
	case L4Proto:
		return nftables.TypeInetProto
	case DstPort:
		return nftables.TypeInetService
	default:
		return nftables.TypeInvalid
	}
}

// size is the length of the field's value in bytes, before padding.
func (f Field) size() int { return int(f.datatype().Bytes) }

// words is the number of 32-bit registers that the field takes up.
func (f Field) words() int { return (f.size() + 3) / 4 }

// family is the IP version that the field implies, 0 if none.
func (f Field) family() int {
	switch f {
	case SrcAddr4, DstAddr4:
		return 4
	case SrcAddr6, DstAddr6:
		return 6
	default:
		return 0
	}
}

// String is the field as nft writes it.
func (f Field) String() string {
	switch f {
	case SrcAddr4:
		return "ip saddr"
	case SrcAddr6:
		return "ip6 saddr"
	case DstAddr4:
		return "ip daddr"
	case DstAddr6:
		return "ip6 daddr"
	case InIface:
		return "iifname"
	case OutIface:
		return "oifname"
	case L4Proto:
		return "meta l4proto"
	case DstPort:
		return "th dport"
	default:
		return "unknown"
	}
}
