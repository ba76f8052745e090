package enforcer

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// scrapeTimeout is how long the counters may take to be read.
const scrapeTimeout = 5 * time.Second

// denialCollector reports the kernel's counters of denied packets, read at each scrape. There are
// two series for each pod of this node and direction that is or was isolated, and they go with the
// pod; and two for each rule of a ClusterNetworkPolicy that denies to pods of this node.
type denialCollector struct {
	enforcer               *Enforcer
	packets, bytes         *prometheus.Desc
	rulePackets, ruleBytes *prometheus.Desc
}

// NewDenialCollector returns a collector of what an Enforcer's pods were denied.
func NewDenialCollector(e *Enforcer) prometheus.Collector {
	labels := []string{"namespace", "pod", "direction"}
	byRule := []string{"tier", "policy", "direction", "rule"}
	return &denialCollector{
		enforcer: e,
		packets: prometheus.NewDesc("sluice_denied_packets_total",
			"Packets that policies denied to a pod of this node, from or to it.", labels, nil),
		bytes: prometheus.NewDesc("sluice_denied_bytes_total",
			"Bytes of these packets, IP headers included.", labels, nil),
		rulePackets: prometheus.NewDesc("sluice_rule_denied_packets_total",
			"Packets that a rule of a ClusterNetworkPolicy denied to pods of this node.", byRule,
			nil),
		ruleBytes: prometheus.NewDesc("sluice_rule_denied_bytes_total",
			"Bytes of these packets, IP headers included.", byRule, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *denialCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.packets
	out <- c.bytes
	out <- c.rulePackets
	out <- c.ruleBytes
}

// Collect implements prometheus.Collector. Where the kernel can't be asked, the other metrics are
// reported without these.
func (c *denialCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	list, byRules, err := c.enforcer.countedDenials(ctx)
	if err != nil {
		c.enforcer.opts.Log.Error(err, "Counting denied packets failed")
		return
	}
	for _, d := range list {
		labels := []string{d.Namespace, d.Pod, d.Direction.String()}
		out <- prometheus.MustNewConstMetric(c.packets, prometheus.CounterValue, float64(d.Packets),
			labels...)
		out <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(d.Bytes),
			labels...)
	}
	for _, d := range byRules {
		labels := []string{d.Tier.String(), d.Policy.Name, d.Direction.String(),
			strconv.Itoa(d.Rule)}
		out <- prometheus.MustNewConstMetric(c.rulePackets, prometheus.CounterValue,
			float64(d.Packets), labels...)
		out <- prometheus.MustNewConstMetric(c.ruleBytes, prometheus.CounterValue,
			float64(d.Bytes), labels...)
	}
}
