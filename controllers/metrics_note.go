package controllers

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/nft/others"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/overlay/reach"
)

func (m *Metrics) noteProblems(total int) {
	if m != nil {
		m.policyProblems.Set(float64(total))
	}
}

func (m *Metrics) notePods(known int) {
	if m != nil {
		m.podsKnown.Set(float64(known))
	}
}

func (m *Metrics) noteReady(ready bool) {
	if m != nil {
		m.networkReady.Set(boolValue(ready))
	}
}

func (m *Metrics) noteNetwork(s overlay.Status) {
	if m == nil {
		return
	}
	m.networkPeers.Set(float64(len(s.Peers)))
	m.networkSkipped.Set(float64(len(s.Skipped)))
	m.networkChanges.Set(float64(s.Changes))
	m.podMTU.Set(float64(s.MTU))
	m.linksNotForwarding.Set(float64(len(s.NotForwarding)))
}

func (m *Metrics) noteBlockers(blockers []others.Blocker) {
	if m == nil {
		return
	}
	m.forwardBlockers.Reset()
	for _, b := range blockers {
		m.forwardBlockers.With(prometheus.Labels{"backend": b.Backend, "family": b.Family,
			"table": b.Table, "chain": b.Chain}).Set(1)
	}
}

func (m *Metrics) noteForwarding(result others.Result) {
	if m == nil {
		return
	}
	for family, outcome := range map[string]others.Outcome{"ipv4": result.IPv4,
		"ipv6": result.IPv6} {
		if outcome != others.NotTried {
			m.forwardPasses.With(prometheus.Labels{"family": family}).
				Set(boolValue(outcome == others.Passed))
		}
	}
}

func (m *Metrics) noteBypasses(bridges int) {
	if m != nil {
		m.policyBypassed.Set(float64(bridges))
	}
}

func (m *Metrics) noteTunnel(n tunnelCounts) {
	if m == nil {
		return
	}
	m.tunnelPeers.WithLabelValues("answering").Set(float64(n.answering))
	m.tunnelPeers.WithLabelValues("silent").Set(float64(n.silent))
	m.tunnelPeers.WithLabelValues("not_ready").Set(float64(n.notReady))
	m.tunnelPeers.WithLabelValues("untried").Set(float64(n.untried))
}

// countProbes adds what has been asked since the last report.
func (m *Metrics) countProbes(last, now reach.Report) {
	if m == nil {
		return
	}
	m.tunnelProbes.WithLabelValues("answered").Add(float64(now.Answered - last.Answered))
	m.tunnelProbes.WithLabelValues("unanswered").Add(float64(now.Unanswered - last.Unanswered))
	m.tunnelProbes.WithLabelValues("unsent").Add(float64(now.Unsent - last.Unsent))
}

func (m *Metrics) noteTracking(connections, limit int) {
	if m != nil {
		m.trackedConnections.Set(float64(connections))
		m.trackedConnectionsMax.Set(float64(limit))
	}
}
