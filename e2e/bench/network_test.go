package bench

import (
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
	rounds, slice := 15, 40*time.Millisecond
	if long {
		rounds, slice = 101, 100*time.Millisecond
	}
	names, makers := ways()
	var meters []meter
	for i, name := range names {
		meters = append(meters, l.open(b, makers[i](b, name)))
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
		report(b, c.name, map[string]float64{
			l.unit:        median(c.figures),
			"of-underlay": median(c.ratios(columns[0])),
			"of-vxlan":    median(c.ratios(columns[1])),
		})
	}
}
