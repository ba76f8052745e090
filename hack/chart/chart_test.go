package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const printed = `goos: linux
BenchmarkNetworkTCPStream/vxlan-by-hand-tracked-2   1   100 B/s   0.8 of-vxlan
BenchmarkNetworkTCPStream/sluice-vxlan-2            1   90 B/s    0.4 of-vxlan
BenchmarkNetworkTCPStream/sluice-vxlan-2            1   90 B/s    0.6 of-vxlan
BenchmarkNetworkTCPStream/sluice-vxlan-2            1   90 B/s    0.9 of-vxlan
BenchmarkFanout/watchers=1-2    1   2.5 CPU-ms/change
BenchmarkFanout/watchers=<9>-2  1   75 CPU-ms/change
BenchmarkPluginAlone/ptp-2      60  4000000 ns-ADD-p50  2000000 ns-DEL-p50
BenchmarkPluginAlone/sluice-2   60  1000000 ns-ADD-p50  2500000 ns-DEL-p50
BenchmarkPeersNetwork/TCPStream/sluice-vxlan-2    1  0.7 of-flannel-host-gw  0.95 of-flannel-vxlan
BenchmarkPeersNetwork/TCPStream/sluice-host-gw-2  1  1.02 of-flannel-host-gw  1.4 of-flannel-vxlan
BenchmarkPeersPolicy/pods=9/sluice-2        1   1.0 cut  9000000 ns-Ready-p50
BenchmarkPeersPolicy/pods=9/kube-router-2   1   0 cut  100000000 ns-Ready-p50
BenchmarkPeersMemory/nodes=1000,pods=30000/alone-2   1   41 MiB
BenchmarkPeersMemory/kube-router-2          1   685 MiB  6.1 of-sluice
PASS
`

func TestCharts(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := run(strings.NewReader(printed), folder); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string][]string{
		"network.svg": {"TCP, a stream", "sluice-vxlan", ">0.75<"}, // the median, of the reference
		"fanout.svg":  {"watchers=&lt;9&gt;", ">2.50 ms<", ">75.0 ms<", `width="380.0"`},
		"plugin.svg":  {"one pod: ADD", ">0.25<", "one pod: DEL", ">1.25<"},

		"peers-network.svg": {"TCP, a stream", ">0.95<", "sluice-host-gw", ">1.02<"},
		"peers-policy.svg":  {"pods=9", "kube-router", ">9.00 ms<", ">100 ms<"},
		"peers-memory.svg":  {"kube-router", ">685 MiB<"},
	} {
		svg, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(string(svg), w) {
				t.Errorf("%s has no %q:\n%s", file, w, svg)
			}
		}
		wellFormed(t, file, string(svg))
	}
	if _, err := os.Stat(filepath.Join(folder, "path.svg")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a chart of nothing: %v", err)
	}
}

func wellFormed(t *testing.T, file, svg string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
}

func TestBadResults(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"PASS\n": "none of the benchmarks",
		"BenchmarkFanout/a-2 1 many CPU-ms/change\n": `expected a number before "CPU-ms/change"`,
	} {
		if err := run(strings.NewReader(in), t.TempDir()); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", in, err)
		}
	}
}
