package controllers

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/cni/server"
)

// Metrics are what the parts of this package count, and a prometheus.Collector: who makes them
// registers them. They are of bounded cardinality: nothing is labelled by pod or policy. Nil ones
// count nothing.
type Metrics struct {
	policyProblems prometheus.Gauge
	podsKnown      prometheus.Gauge

	// Of the pod network.
	networkReady       prometheus.Gauge
	networkPeers       prometheus.Gauge
	networkSkipped     prometheus.Gauge
	networkChanges     prometheus.Gauge
	linksNotForwarding prometheus.Gauge
	podMTU             prometheus.Gauge
	pools              *poolCollector

	// Of what else the node does to packets.
	forwardBlockers       *prometheus.GaugeVec
	forwardPasses         *prometheus.GaugeVec
	policyBypassed        prometheus.Gauge
	tunnelPeers           *prometheus.GaugeVec
	tunnelProbes          *prometheus.CounterVec
	trackedConnections    prometheus.Gauge
	trackedConnectionsMax prometheus.Gauge
}

// NewMetrics returns Metrics that have counted nothing. stats are those of the CNI server.
func NewMetrics(stats func() server.Stats) *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	return &Metrics{
		policyProblems: gauge("sluice_policy_problems",
			"Fields of NetworkPolicies that can't be read; events on the policies name them."),
		podsKnown: gauge("sluice_pods", "Pods of the cluster that the agent knows."),
		networkReady: gauge("sluice_network_ready",
			"1 if the pod network of this node is as it should be; events on the node say why "+
				"not."),
		networkPeers: gauge("sluice_network_peers", "Nodes that this node has a way to."),
		networkSkipped: gauge("sluice_network_skipped_nodes",
			"Nodes that this node has no way to; events on this node say why."),
		networkChanges: gauge("sluice_network_changes",
			"Links, addresses, routes and neighbours that were added, changed or removed since "+
				"the agent's start."),
		linksNotForwarding: gauge("sluice_network_links_not_forwarding",
			"Links of this node by which IPv4 packets for pods come in, and are dropped as the "+
				"link's own forwarding is off."),
		podMTU: gauge("sluice_pod_mtu_bytes", "MTU that new pods get."),
		pools:  newPoolCollector(stats),
		forwardBlockers: gauges("sluice_forward_blocker",
			"1 for each chain of others that drops what this node forwards unless a rule of it "+
				"accepts.",
			"backend", "family", "table", "chain"),
		forwardPasses: gauges("sluice_forward_passes",
			"1 if a packet as between pods came through this node when last tried.", "family"),
		policyBypassed: gauge("sluice_policy_bypassed",
			"Bridges on which pods of this node talk to each other past the ruleset; with "+
				"--policy-only."),
		tunnelPeers: gauges("sluice_tunnel_peers",
			"Nodes that this node has a way to: answering or silent through the tunnel, "+
				"not_ready if it is Kubernetes that knows why, untried if not asked.",
			"state"),
		tunnelProbes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_tunnel_probes_total",
			Help: "Questions to other nodes through the tunnel, by outcome: answered, unanswered " +
				"or unsent.",
		}, []string{"outcome"}),
		trackedConnections: gauge("sluice_tracked_connections",
			"Connections that the node's connection tracking knows."),
		trackedConnectionsMax: gauge("sluice_tracked_connections_max",
			"Connections that the node's connection tracking has room for (nf_conntrack_max)."),
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.policyProblems, m.podsKnown,
		m.networkReady, m.networkPeers, m.networkSkipped, m.networkChanges, m.linksNotForwarding,
		m.podMTU, m.pools,
		m.forwardBlockers, m.forwardPasses, m.policyBypassed, m.tunnelPeers, m.tunnelProbes,
		m.trackedConnections, m.trackedConnectionsMax,
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(out)
	}
}
