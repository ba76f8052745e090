package controllers

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/cni/server"
	"github.com/sluice-net/sluice/overlay"
)

// TestMetricsAreTheirMakers: two agents in one process count apart, and each registers its own.
func TestMetricsAreTheirMakers(t *testing.T) {
	t.Parallel()
	stats := func() server.Stats { return server.Stats{} }
	one, other := NewMetrics(stats), NewMetrics(stats)
	one.noteNetwork(overlay.Status{MTU: 1450})
	for want, m := range map[float64]*Metrics{1450: one, 0: other} {
		registry := prometheus.NewRegistry()
		if err := registry.Register(m); err != nil {
			t.Fatal(err)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range families {
			if f.GetName() == "sluice_pod_mtu_bytes" {
				found = true
				if got := f.GetMetric()[0].GetGauge().GetValue(); got != want {
					t.Errorf("the MTU is %v, want %v", got, want)
				}
			}
		}
		if !found {
			t.Errorf("there is no MTU among %v", families)
		}
	}
}
