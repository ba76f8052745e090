package answers

import (
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/verify"
)

// VerifiedNode is what verification has to know of a ruleset besides policies.
func VerifiedNode(cfg *ruleset.Config) *verify.Node {
	n := &cfg.Network
	return &verify.Node{
		AllowPodToNode: cfg.AllowPodToNode, CutLabel: cfg.CutBit(), PodRanges: cfg.PodRanges,
		IPVS: cfg.IPVS,
		Pods: n.Pods, Tunnel: n.Enabled() && n.Tunnel != "", Port: n.Port, Local: n.Local,
		Endpoints: n.Endpoints,
	}
}
