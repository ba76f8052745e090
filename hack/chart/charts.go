package main

import "strings"

// chart is a picture of bars, in groups.
type chart struct {
	file, title string
	unit        string  // behind each value
	mark        float64 // a line for comparison; 0: none
	groups      func(results) []group
}

type group struct {
	name string // empty for a chart of one group
	bars []bar
}

type bar struct {
	name  string
	value float64
}

func charts() []chart {
	return []chart{
		{"network.svg", "From pod to pod, of a VXLAN made by hand with connection tracking", "", 1,
			network},
		{"path.svg", "CPU of a datagram from pod to pod, without one part of the ruleset", "ns", 0,
			simple("BenchmarkPath", "ns/datagram")},
		{"fanout.svg", "CPU of the API server for one change of a pod or a Node", "ms", 0,
			simple("BenchmarkFanout", "CPU-ms/change")},
		{"plugin.svg", "How long CNI's verbs take, of the plugin ptp", "", 1, plugins},
		{"peers-network.svg", "From pod to pod with policies, of flannel, which enforces none", "",
			1, peersNetwork},
		{"peers-policy.svg", "From a policy's creation until all that it allows works", "ms", 0,
			peersPolicy},
		{"peers-memory.svg", "Memory of agents among 1,000 nodes, 30,000 pods, 400 policies", "MiB",
			0, peersMemory},
	}
}

// loads are the kinds of traffic that ways are compared by.
var loads = [...]struct{ benchmark, name string }{
	{"TCPStream", "TCP, a stream"}, {"UDPStream", "UDP, a stream"},
	{"UDPOneWay", "UDP, each judged, by CPU"}, {"TCPRequest", "TCP, requests"},
	{"UDPRequest", "UDP, requests"}, {"TCPConnect", "TCP, connections"},
}

// network compares loads, each by backend.
func network(r results) []group {
	const reference, ratio = "vxlan-by-hand-tracked", "of-vxlan"
	ways := [...]bar{{name: "sluice-vxlan"}, {name: "sluice-vxlan-no-policy"},
		{name: "sluice-host-gw"}}
	var out []group
	for _, load := range loads {
		benchmark := "BenchmarkNetwork" + load.benchmark
		base, ok := r.get(benchmark, reference, ratio)
		if !ok || base == 0 {
			continue
		}
		g := group{name: load.name}
		for _, way := range ways {
			if value, ok := r.get(benchmark, way.name, ratio); ok {
				g.bars = append(g.bars, bar{way.name, value / base})
			}
		}
		out = append(out, g)
	}
	return out
}

// simple has a bar for each sub-benchmark.
func simple(benchmark, unit string) func(results) []group {
	return func(r results) []group {
		var g group
		for _, l := range r[benchmark] {
			if value, ok := l.figures[unit]; ok {
				g.bars = append(g.bars, bar{l.name, value})
			}
		}
		if len(g.bars) == 0 {
			return nil
		}
		return []group{g}
	}
}

// plugins compares how long verbs take, the median, for one pod and for 50 at once.
func plugins(r results) []group {
	const reference = "ptp"
	var out []group
	for _, c := range [...]struct{ benchmark, name string }{
		{"BenchmarkPluginAlone", "one pod"}, {"BenchmarkPluginFiftyAtOnce", "50 pods at once"}} {
		for _, verb := range [...]string{"ADD", "DEL"} {
			g := group{name: c.name + ": " + verb}
			unit := "ns-" + verb + "-p50"
			base, _ := r.get(c.benchmark, reference, unit)
			for _, l := range r[c.benchmark] {
				if base > 0 && l.name != reference {
					g.bars = append(g.bars, bar{l.name, l.figures[unit] / base})
				}
			}
			if len(g.bars) > 0 {
				out = append(out, g)
			}
		}
	}
	return out
}

// peersNetwork compares each backend with flannel's.
func peersNetwork(r results) (out []group) {
	for _, load := range loads {
		g := group{name: load.name}
		for _, backend := range [...]string{"vxlan", "host-gw"} {
			value, ok := r.get("BenchmarkPeersNetwork", load.benchmark+"/sluice-"+backend,
				"of-flannel-"+backend)
			if ok {
				g.bars = append(g.bars, bar{"sluice-" + backend, value})
			}
		}
		if len(g.bars) > 0 {
			out = append(out, g)
		}
	}
	return out
}

// peersPolicy has a group for each number of pods.
func peersPolicy(r results) (out []group) {
	for _, l := range r["BenchmarkPeersPolicy"] {
		pods, agent, _ := strings.Cut(l.name, "/")
		if len(out) == 0 || out[len(out)-1].name != pods {
			out = append(out, group{name: pods})
		}
		g := &out[len(out)-1]
		g.bars = append(g.bars, bar{agent, l.figures["ns-Ready-p50"] / 1e6})
	}
	return out
}

// peersMemory has those that are compared, and not what else was measured on the way.
func peersMemory(r results) []group {
	var g group
	for _, l := range r["BenchmarkPeersMemory"] {
		if _, ok := l.figures["of-sluice"]; ok {
			g.bars = append(g.bars, bar{l.name, l.figures["MiB"]})
		}
	}
	if len(g.bars) == 0 {
		return nil
	}
	return []group{g}
}
