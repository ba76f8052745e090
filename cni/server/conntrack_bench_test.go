package server

import (
	"fmt"
	"testing"

	"github.com/sluice-net/sluice/test/cnitest"
)

// BenchmarkForgetConnections is one pod's DEL: its two addresses in a table that holds other
// connections.
func BenchmarkForgetConnections(b *testing.B) {
	for name, of := range map[string]struct{ client, server string }{
		"IPv4": {"10.%d.%d.%d:1000", "198.51.100.1:80"},
		"IPv6": {"[fd00:%d:%d::%d]:1000", "[2001:db8::1]:80"},
	} {
		for _, others := range []int{0, 1000, 5000, 50000} {
			b.Run(fmt.Sprintf("%s/others=%d", name, others), func(b *testing.B) {
				netns := cnitest.NewNetNS(b)
				var flows []flow
				for i := range others {
					flows = append(flows,
						plain(tcp, fmt.Sprintf(of.client, 2+i>>16, i>>8&255, i&255), of.server))
				}
				in(b, netns, func() error {
					if err := track(flows...); err != nil {
						return err
					}
					pod := cnitest.Addrs("10.1.0.2", "fd00:1::2")
					mine := []flow{plain(udp, "10.1.0.2:1", "192.0.2.1:2"),
						plain(udp, "[fd00:1::2]:1", "[2001:db8::1]:2")}
					for b.Loop() {
						b.StopTimer()
						if err := track(mine...); err != nil {
							return err
						}
						b.StartTimer()
						if err := forgetConnections(pod); err != nil {
							return err
						}
					}
					b.StopTimer()
					left, err := tracked()
					if len(left) != others {
						b.Errorf("%d connections are left, want %d", len(left), others)
					}
					return err
				})
			})
		}
	}
}
