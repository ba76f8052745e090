package controllers

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// The agent's metrics. They are of bounded cardinality: nothing is labelled by
// pod or policy.
var (
	commitSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "sluice_event_to_commit_seconds",
		Help:    "Time from the arrival of the oldest event of a batch to the commit of the batch in the kernel.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
	})
	applyErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_apply_errors_total",
		Help: "Writes of the ruleset that failed and were tried again.",
	})
	endpointsEnforced = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_endpoints_enforced",
		Help: "Attachments of pods whose policy is in the kernel.",
	})
	policyProblems = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_policy_problems",
		Help: "Fields of NetworkPolicies that can't be read; events on the policies name them.",
	})
)

// RegisterMetrics adds the agent's metrics to controller-runtime's registry.
func RegisterMetrics() error {
	for _, c := range []prometheus.Collector{commitSeconds, applyErrors, endpointsEnforced, policyProblems} {
		if err := metrics.Registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}
