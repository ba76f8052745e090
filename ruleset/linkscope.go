package ruleset

import (
	"net/netip"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
)

// linkScope drops packets that only a bridge forwards: to multicast, broadcast and link-local
// addresses, which every pod of the bridge hears or has, and from link-local ones. No pod is known
// by these addresses, so no other rule would judge the packets.
func linkScope(d policy.Direction) []nft.Rule {
	const what = "on a bridge, to or from no known pod"
	drop := func(match nft.Statement) nft.Rule { return drop(what, match) }
	if d == policy.Egress {
		return []nft.Rule{drop(nft.MatchPrefix{Field: nft.SrcAddr6, Prefix: linkLocal6})}
	}
	return []nft.Rule{
		drop(nft.MatchPrefix{Field: nft.DstAddr4, Prefix: multicast4}),
		drop(nft.MatchAddr{Field: nft.DstAddr4,
			Addr: netip.AddrFrom4([4]byte{255, 255, 255, 255})}),
		drop(nft.MatchPrefix{Field: nft.DstAddr6, Prefix: multicast6}),
		drop(nft.MatchPrefix{Field: nft.DstAddr6, Prefix: linkLocal6}),
	}
}
