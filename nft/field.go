package nft

// A Field is a part of a packet, or of what connection tracking knows of it, that rules match and
// sets are keyed by.
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
	// OriginalSrc4 and the next three are the two ends of a packet's connection, behind any
	// translation: the sender of the first packet, and the sender of the answers. An error about a
	// connection has that connection's ends. Packets without a connection don't match.
	OriginalSrc4
	OriginalSrc6
	ReplySrc4
	ReplySrc6

	// ForeignField stands for a key type of a set that isn't ours.
	ForeignField
)

// Type is what nft calls the type of the field's value: fields of one type make the same key of a
// set.
func (f Field) Type() string {
	switch f {
	case SrcAddr4, DstAddr4, OriginalSrc4, ReplySrc4:
		return "ipv4_addr"
	case SrcAddr6, DstAddr6, OriginalSrc6, ReplySrc6:
		return "ipv6_addr"
	case InIface, OutIface:
		return "ifname"
	case L4Proto:
		return "inet_proto"
	case DstPort:
		return "inet_service"
	default:
		return "invalid"
	}
}

// Size is the length of the field's value in bytes, before padding; 0 for foreign ones.
func (f Field) Size() int {
	switch f {
	case SrcAddr4, DstAddr4, OriginalSrc4, ReplySrc4:
		return 4
	case SrcAddr6, DstAddr6, OriginalSrc6, ReplySrc6, InIface, OutIface:
		return 16
	case L4Proto:
		return 1
	case DstPort:
		return 2
	default:
		return 0
	}
}

// Words is the number of 32-bit registers that the field takes up.
func (f Field) Words() int { return (f.Size() + 3) / 4 }

// Family is the IP version that the field implies, 0 if none.
func (f Field) Family() int {
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
