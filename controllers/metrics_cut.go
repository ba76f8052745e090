package controllers

import "github.com/prometheus/client_golang/prometheus"

// The Cutter's metrics.
var (
	flowsCut = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_connections_cut_total",
		Help: "Established connections that policy came to deny and that were cut.",
	})
	flowsRestored = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_connections_restored_total",
		Help: "Cut connections that policy came to allow again while the kernel knew them.",
	})
	sweepSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "sluice_connection_sweep_seconds",
		Help:    "Time to look through the node's connections for those that a change of policy concerns.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
	})
	sweepErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_connection_sweep_errors_total",
		Help: "Looks through the node's connections that failed and were tried again.",
	})
)
