package wire

import (
	"github.com/google/nftables"

	"github.com/sluice-net/sluice/nft"
)

// datatype is the nftables type of the field; invalid for foreign ones.
func datatype(f nft.Field) nftables.SetDatatype {
	switch f {
	case nft.SrcAddr4, nft.DstAddr4, nft.OriginalSrc4, nft.ReplySrc4:
		return nftables.TypeIPAddr
	case nft.SrcAddr6, nft.DstAddr6, nft.OriginalSrc6, nft.ReplySrc6:
		return nftables.TypeIP6Addr
	case nft.InIface, nft.OutIface:
		return nftables.TypeIFName
	case nft.L4Proto:
		return nftables.TypeInetProto
	case nft.DstPort:
		return nftables.TypeInetService
	default:
		return nftables.TypeInvalid
	}
}
