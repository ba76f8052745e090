package answers

import (
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/verify"
)

// VerifiedNode is what verification has to know of a ruleset besides policies.
func VerifiedNode(cfg *ruleset.Config) *verify.Node {
	n := &cfg.Network
	out := &verify.Node{
		AllowPodToNode: cfg.AllowPodToNode, CutLabel: cfg.CutBit(), PodRanges: cfg.PodRanges,
		IPVS: cfg.IPVS, Pods: n.Pods,
	}
	if n.Enabled() {
		out.Tunnel, out.Port, out.Local, out.Endpoints = n.Tunnel, n.Port, n.Local, n.Endpoints
	}
	return out
}
