package nft

import "github.com/google/nftables"

// A Field is a part of a packet, or of what connection tracking knows of it, that
// rules match and sets are keyed by.
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
	// Who sent the first packet of the packet's connection, and who sends the
	// answers, behind whatever translation: its two ends. An error about a
	// connection has that connection's. Packets without a connection don't match.
	OriginalSrc4
	OriginalSrc6
	ReplySrc4
	ReplySrc6

	// foreignField stands for a key type of a set that isn't ours.
	foreignField
)

// datatype is the nftables type of the field; invalid for foreign ones.
func (f Field) datatype() nftables.SetDatatype {
	switch f {
	case SrcAddr4, DstAddr4, OriginalSrc4, ReplySrc4:
		return nftables.TypeIPAddr
	case SrcAddr6, DstAddr6, OriginalSrc6, ReplySrc6:
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
	case SrcAddr4, DstAddr4, OriginalSrc4, ReplySrc4:
		return 4
	case SrcAddr6, DstAddr6, OriginalSrc6, ReplySrc6:
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
	case OriginalSrc4:
		return "ct original ip saddr"
	case OriginalSrc6:
		return "ct original ip6 saddr"
	case ReplySrc4:
		return "ct reply ip saddr"
	case ReplySrc6:
		return "ct reply ip6 saddr"
	default:
		return "unknown"
	}
}
