package bench

import (
	"slices"
	"testing"
	"time"
)

// A pod on one node sends to a pod on another, with policies that isolate both and allow this.
func BenchmarkNetworkTCPStream(b *testing.B)  { network(b, tcpStream) }
func BenchmarkNetworkUDPStream(b *testing.B)  { network(b, udpStream) }
func BenchmarkNetworkUDPWork(b *testing.B)    { network(b, udpWork) }
func BenchmarkNetworkUDPOneWay(b *testing.B)  { network(b, udpOneWay) }
func BenchmarkNetworkTCPRequest(b *testing.B) { network(b, tcpRequest) }
func BenchmarkNetworkUDPRequest(b *testing.B) { network(b, udpRequest) }
func BenchmarkNetworkTCPConnect(b *testing.B) { network(b, tcpConnect) }

// The ways that are compared. The first two are references: of-underlay and of-vxlan.
func ways() (names []string, makers []func(*testing.B, string) way) {
	for _, w := range []struct {
		name string
		make func(*testing.B, string) way
	}{
		{"underlay", underlay},
		{"vxlan-by-hand", vxlanByHand},
		{"vxlan-by-hand-tracked", vxlanTracked},
		{"sluice-vxlan-no-policy", sluice(vxlan, false)},
		{"sluice-vxlan", sluice(vxlan, true)},
		{"sluice-host-gw", sluice(hostGW, true)},
		{"sluice-directrouting", sluice(directRouting, true)},
	} {
		names, makers = append(names, w.name), append(makers, w.make)
	}
	return names, makers
}

func network(b *testing.B, l load) {
	b.Helper()
	names, makers := ways()
	var all []way
	for i, name := range names {
		all = append(all, makers[i](b, name))
	}
	compare(b, l, all, map[string]string{"of-underlay": names[0], "of-vxlan": names[1]})
}

// compare reports a load on each way, and its ratios to references: units, by which way is one.
func compare(b *testing.B, l load, ways []way, references map[string]string) {
	b.Helper()
	rounds, slice := 15, 40*time.Millisecond
	if long {
		rounds, slice = 101, 100*time.Millisecond
	}
	var names []string
	var meters []meter
	for _, w := range ways {
		names, meters = append(names, w.name), append(meters, l.open(b, w))
	}
	for _, m := range meters { // everything is warm then
		if _, err := m(slice); err != nil {
			b.Fatal(err)
		}
	}
	columns := interleave(b, rounds, names, func(i int) (float64, error) {
		return meters[i](slice)
	})
	for _, c := range columns {
		figures := map[string]float64{l.unit: median(c.figures)}
		for unit, reference := range references {
			figures[unit] = median(c.ratios(columns[slices.Index(names, reference)]))
		}
		report(b, c.name, figures)
	}
}
