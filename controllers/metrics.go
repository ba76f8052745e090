package controllers

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/cni/server"
)

// The agent's metrics. They are of bounded cardinality: nothing is labelled by
// pod, but for what was denied to the pods of this node, or by policy.
var (
	policyProblems = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_policy_problems",
		Help: "Fields of NetworkPolicies that can't be read; events on the policies name them.",
	})
	networkReady = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_network_ready",
		Help: "1 if the pod network of this node is as it should be; events on the node say why not.",
	})
	networkPeers = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_network_peers",
		Help: "Nodes that this node has a way to.",
	})
	networkSkipped = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_network_skipped_nodes",
		Help: "Nodes that this node has no way to; events on this node say why.",
	})
	networkChanges = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_network_changes",
		Help: "Links, addresses, routes and neighbours that were added, changed or removed since the agent's start.",
	})
	linksNotForwarding = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_network_links_not_forwarding",
		Help: "Links of this node by which IPv4 packets for pods come in, and are dropped as the link's own forwarding is off.",
	})
	podMTU = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_pod_mtu_bytes",
		Help: "MTU that new pods get.",
	})
	forwardBlockers = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sluice_forward_blocker",
		Help: "1 for each chain of others that drops what this node forwards unless a rule of it accepts.",
	}, []string{"backend", "family", "table", "chain"})
	forwardPasses = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sluice_forward_passes",
		Help: "1 if a packet as between pods came through this node when last tried.",
	}, []string{"family"})
	policyBypassed = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_policy_bypassed",
		Help: "Bridges on which pods of this node talk to each other past the ruleset; with --policy-only.",
	})
)

// Metrics are those of this package, to register once. stats are those of the
// CNI server.
func Metrics(stats func() server.Stats) []prometheus.Collector {
	return []prometheus.Collector{
		policyProblems,
		networkReady, networkPeers, networkSkipped, networkChanges, linksNotForwarding, podMTU,
		forwardBlockers, forwardPasses, policyBypassed, tunnelPeers, tunnelProbes, newPoolCollector(stats),
		trackedConnections, trackedConnectionsMax,
	}
}
