package controllers

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/overlay/reach"
)

// The TunnelCheck's metrics.
var (
	tunnelPeers = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sluice_tunnel_peers",
		Help: "Nodes that this node has a way to: answering or silent through the tunnel, not_ready if it is Kubernetes that knows why, untried if not asked.",
	}, []string{"state"})
	tunnelProbes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_tunnel_probes_total",
		Help: "Questions to other nodes through the tunnel, by outcome: answered, unanswered or unsent.",
	}, []string{"outcome"})
)

func (n tunnelCounts) set() {
	tunnelPeers.WithLabelValues("answering").Set(float64(n.answering))
	tunnelPeers.WithLabelValues("silent").Set(float64(n.silent))
	tunnelPeers.WithLabelValues("not_ready").Set(float64(n.notReady))
	tunnelPeers.WithLabelValues("untried").Set(float64(n.untried))
}

// countProbes adds what has been asked since the last report.
func countProbes(last, now reach.Report) {
	tunnelProbes.WithLabelValues("answered").Add(float64(now.Answered - last.Answered))
	tunnelProbes.WithLabelValues("unanswered").Add(float64(now.Unanswered - last.Unanswered))
	tunnelProbes.WithLabelValues("unsent").Add(float64(now.Unsent - last.Unsent))
}
