package nft

import "net/netip"

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func rule(s ...Statement) Rule { return Rule{Statements: s} }

var (
	accept = Do{Verdict{Kind: Accept}}
	drop   = Do{Verdict{Kind: Drop}}
	ret    = Do{Verdict{Kind: Return}}
)

func jump(chain string) Do { return Do{JumpTo(chain)} }
