package answers

import "github.com/prometheus/client_golang/prometheus"

// verifyMetrics are a Verifier's.
type verifyMetrics struct {
	differences prometheus.Gauge
	unreadable  prometheus.Gauge
	seconds     prometheus.Histogram
	work        prometheus.Counter
	passes      prometheus.Counter
}

func newVerifyMetrics() verifyMetrics {
	return verifyMetrics{
		differences: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_verify_differences",
			Help: "Classes of packets that the kernel treated otherwise than the policies mean " +
				"when last compared; sluice-agent verify lists them.",
		}),
		unreadable: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_verify_unreadable",
			Help: "1 if the table had something that can't be judged when last compared; an " +
				"event on the node names it.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sluice_verify_pass_seconds",
			Help: "Time from the reading of the kernel to the end of a comparison, " +
				"rests included.",
			Buckets: prometheus.ExponentialBuckets(1, 3, 8),
		}),
		work: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_verify_work_seconds_total",
			Help: "Time spent comparing, rests not included.",
		}),
		passes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_verify_passes_total",
			Help: "Comparisons of the whole table with the policies.",
		}),
	}
}

// Metrics are to be registered once.
func (v *Verifier) Metrics() []prometheus.Collector {
	m := &v.metrics
	return []prometheus.Collector{m.differences, m.unreadable, m.seconds, m.work, m.passes}
}
