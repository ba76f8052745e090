package conntrack

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/test/testnet"
)

// BenchmarkFind looks for one pod's connections among others of its family.
func BenchmarkFind(b *testing.B) {
	for _, family := range []string{"IPv4", "IPv6"} {
		node := testnet.NewNode(b)
		for _, others := range []int{0, 50000} {
			flows := testnet.Crowd(others, 0)
			if family == "IPv6" {
				flows = testnet.Crowd(0, others)
			}
			in(b, node, func() error { return testnet.Track(flows...) })
			pod := netip.MustParseAddr("10.1.0.2")
			if family == "IPv6" {
				pod = netip.MustParseAddr("fd00:1::2")
			}
			b.Run(fmt.Sprintf("%s/others=%d", family, others), func(b *testing.B) {
				in(b, node, func() error {
					table, err := Open()
					if err != nil {
						return err
					}
					defer table.Close()
					user, system := cpu()
					for b.Loop() {
						found, err := table.Find([]Query{OpenedBy(pod), AnsweredBy(pod)},
							func(e *Entry) bool { return e.Orig.Src == pod || e.Reply.Src == pod })
						if err != nil || len(found) > 0 {
							return fmt.Errorf("found %v: %w", found, err)
						}
					}
					u, s := cpu()
					b.ReportMetric(float64(u-user)/float64(b.N)/1e6, "user-ms/op")
					b.ReportMetric(float64(s-system)/float64(b.N)/1e6, "system-ms/op")
					return nil
				})
			})
		}
	}
}

// cpu is the CPU time of the calling thread, in ns.
func cpu() (user, system int64) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
		return 0, 0
	}
	return usage.Utime.Nano(), usage.Stime.Nano()
}
