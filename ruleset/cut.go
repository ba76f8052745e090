package ruleset

import (
	"cmp"

	"github.com/sluice-net/sluice/nft"
)

// cutChain gets the packets of connections that policy denies now.
var cutChain = nft.Name("cut")

// defaultCutLabel is the last bit of a label. Other users begin with the first.
const defaultCutLabel = 127

// CutBit is the bit of connections' labels by which a cut one is known.
func (cfg *Config) CutBit() uint8 { return cmp.Or(cfg.CutLabel, defaultCutLabel) }

// cutting is the first rule of the base chains on forward and input where egress is judged, before
// established connections pass. No chain on output has it: there, the resets that it sends pass
// themselves.
func (cfg *Config) cutting() nft.Rule {
	return rule("policy denies the connection by now", nft.MatchCTLabel{Bit: cfg.CutBit()},
		nft.Do{Verdict: nft.JumpTo(cutChain)})
}

// addCut adds the chain that ends connections: the end that sends next gets a reset, where the
// protocol has resets.
//
// No packet meets the last rule. It gives connections room for a label: they get it, when they
// begin, if a rule of any table sets one. In kernels before 2025, a rule that matches one isn't
// enough. So the chain also stands while nothing is cut.
func (cfg *Config) addCut(out *nft.Ruleset) {
	out.AddChain(&nft.Chain{Name: cutChain, Rules: []nft.Rule{
		rule("packets of cut connections", nft.Count{}),
		rule("", nft.ResetTCP{}),
		rule("", do(nft.Drop)),
		rule("never met; makes room for labels", nft.SetCTLabel{Bit: cfg.CutBit()}),
	}})
}

// resets accepts the resets that are sent in the name of a connection's other end: they begin on
// output, and their source isn't local. Only chains on output need it.
func resets() nft.Rule {
	return rule("resets of connections that are denied", nft.MatchCT{State: nft.CTRelated},
		nft.MatchTCPNoSYN{}, do(nft.Accept))
}
