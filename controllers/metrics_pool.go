package controllers

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/cni/server"
)

// poolCollector reports the addresses of this node's pods as they are when asked.
type poolCollector struct {
	stats                                        func() server.Stats
	size, inUse, cooling, failing, healed, count *prometheus.Desc
}

func newPoolCollector(stats func() server.Stats) *poolCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &poolCollector{
		stats: stats,
		size:  desc("sluice_addresses", "Addresses that pods of this node can have.", "cidr"),
		inUse: desc("sluice_addresses_in_use", "Addresses that pods of this node have.", "cidr"),
		cooling: desc("sluice_addresses_cooling",
			"Addresses that were given back and aren't given again yet.", "cidr"),
		failing: desc("sluice_state_failing", "1 while the state directory can't be written, so "+
			"that new pods don't start, or a record in it can't be removed."),
		healed: desc("sluice_host_ends_healed_total",
			"Times that the node's end of a pod was found changed and put right."),
		count: desc("sluice_attachments", "Attachments of pods to this node's network."),
	}
}

// Describe implements prometheus.Collector.
func (c *poolCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.size, c.inUse, c.cooling, c.failing, c.healed, c.count} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *poolCollector) Collect(out chan<- prometheus.Metric) {
	stats := c.stats()
	for _, p := range stats.Pools {
		cidr := p.Prefix.String()
		out <- prometheus.MustNewConstMetric(c.size, prometheus.GaugeValue, float64(p.Size), cidr)
		out <- prometheus.MustNewConstMetric(c.inUse, prometheus.GaugeValue, float64(p.InUse), cidr)
		out <- prometheus.MustNewConstMetric(c.cooling, prometheus.GaugeValue,
			float64(p.Cooling), cidr)
	}
	out <- prometheus.MustNewConstMetric(c.failing, prometheus.GaugeValue,
		boolValue(stats.StateFailing))
	out <- prometheus.MustNewConstMetric(c.healed, prometheus.CounterValue,
		float64(stats.HealedHostEnds))
	out <- prometheus.MustNewConstMetric(c.count, prometheus.GaugeValue, float64(stats.Attachments))
}
