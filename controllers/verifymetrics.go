package controllers

import "github.com/prometheus/client_golang/prometheus"

// The metrics of verification.
var (
	verifyDifferences = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_verify_differences",
		Help: "Classes of packets that the kernel treated otherwise than the policies mean when last compared; sluice-agent verify lists them.",
	})
	verifyUnreadable = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_verify_unreadable",
		Help: "1 if the table had something that can't be judged when last compared; an event on the node names it.",
	})
	verifySeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "sluice_verify_pass_seconds",
		Help:    "Time from the reading of the kernel to the end of a comparison, rests included.",
		Buckets: prometheus.ExponentialBuckets(1, 3, 8),
	})
	verifyWork = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_verify_work_seconds_total",
		Help: "Time spent comparing, rests not included.",
	})
	verifyPasses = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_verify_passes_total",
		Help: "Comparisons of the whole table with the policies.",
	})
)
