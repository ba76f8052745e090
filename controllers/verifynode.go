package controllers

import "github.com/sluice-net/sluice/verify"

// verified is what verification has to know of a ruleset besides policies.
func (cfg *RulesetConfig) verified() *verify.Node {
	n := &cfg.Network
	return &verify.Node{
		AllowPodToNode: cfg.AllowPodToNode, CutLabel: cfg.cutLabel(), PodRanges: cfg.PodRanges,
		Pods: n.Pods, Tunnel: n.enabled() && n.Tunnel != "", Port: n.Port, Local: n.Local, Endpoints: n.Endpoints,
	}
}
