package enforcer

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the metrics of an Enforcer and its parts, of bounded cardinality. They are a
// prometheus.Collector, which the caller registers.
type Metrics struct {
	// Of commits, repairs and what they leave out.
	commitSeconds     prometheus.Histogram
	applyErrors       prometheus.Counter
	rulesetRepairs    prometheus.Counter
	rulesetRefused    prometheus.Gauge
	policiesShed      prometheus.Gauge
	endpointsEnforced prometheus.Gauge
	behind            prometheus.GaugeFunc
	behindSince       atomic.Int64 // in Unix nanoseconds; 0: everything is in the kernel

	// Of connections that are cut.
	flowsCut      prometheus.Counter
	flowsRestored prometheus.Counter
	sweepSeconds  prometheus.Histogram
	sweepErrors   prometheus.Counter

	// Of the records of denied packets.
	denialsLogged  prometheus.Counter
	denialsLeftOut prometheus.Counter
}

// NewMetrics returns Metrics that have counted nothing.
func NewMetrics() *Metrics {
	m := &Metrics{
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sluice_event_to_commit_seconds",
			Help: "Time from the arrival of the oldest event of a batch to the commit of the " +
				"batch in the kernel.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		applyErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_apply_errors_total",
			Help: "Writes of the ruleset that failed and were tried again.",
		}),
		rulesetRepairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_ruleset_repairs_total",
			Help: "How often the table in the kernel was found changed by another program, " +
				"and put right.",
		}),
		rulesetRefused: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_ruleset_refused_objects",
			Help: "Objects of the ruleset that the kernel refuses: what needs them allows less " +
				"than it should; events name the policies and pods.",
		}),
		policiesShed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_policies_too_costly",
			Help: "Policies that isolate and allow nothing, because those of their namespace " +
				"cost this node too much; events name them.",
		}),
		endpointsEnforced: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_endpoints_enforced",
			Help: "Attachments of pods whose policy is in the kernel.",
		}),
		flowsCut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_connections_cut_total",
			Help: "Established connections that policy came to deny and that were cut.",
		}),
		flowsRestored: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_connections_restored_total",
			Help: "Cut connections that policy came to allow again while the kernel knew them.",
		}),
		sweepSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sluice_connection_sweep_seconds",
			Help: "Time to look through the node's connections for those that a change of " +
				"policy concerns.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
		sweepErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_connection_sweep_errors_total",
			Help: "Looks through the node's connections that failed and were tried again.",
		}),
		denialsLogged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_denial_lines_total",
			Help: "Sampled packets of denied connections that were logged.",
		}),
		denialsLeftOut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_denial_lines_left_out_total",
			Help: "Sampled packets of denied connections that were not logged, because there " +
				"were too many at once.",
		}),
	}
	m.behind = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sluice_ruleset_behind_seconds",
		Help: "How long the oldest change that isn't in the kernel yet has waited; 0 if none " +
			"waits.",
	}, m.secondsBehind)
	return m
}

// noteBehind notes when the oldest change came that isn't in the kernel yet; the zero Time: none.
func (m *Metrics) noteBehind(since time.Time) {
	if since.IsZero() {
		m.behindSince.Store(0)
		return
	}
	m.behindSince.Store(since.UnixNano())
}

func (m *Metrics) secondsBehind() float64 {
	since := m.behindSince.Load()
	if since == 0 {
		return 0
	}
	return max(0, time.Since(time.Unix(0, since)).Seconds())
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.commitSeconds, m.applyErrors, m.rulesetRepairs, m.rulesetRefused, m.policiesShed,
		m.endpointsEnforced, m.behind,
		m.flowsCut, m.flowsRestored, m.sweepSeconds, m.sweepErrors, m.denialsLogged,
		m.denialsLeftOut,
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
