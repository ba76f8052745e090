package lab

import (
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/test/probe"
)

func at(addr netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }

func TestTable(t *testing.T) {
	t.Parallel()
	addr4, addr6 := netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("fd00::1")
	ok, silent, refused := probe.Result{OK: true}, probe.Result{Err: probe.ErrTimeout},
		probe.Result{Err: probe.ErrReset}
	odd := probe.Result{Err: probe.ErrUnreachable}
	cell := func(from, to string, protocol probe.Protocol, port uint16,
		results ...probe.Result) []Cell {
		var cells []Cell
		for i, result := range results {
			addr := []netip.Addr{addr4, addr6}[i]
			cells = append(cells,
				Cell{From: from, To: to, Protocol: protocol, Dst: at(addr, port), Result: result})
		}
		return cells
	}
	var m Matrix
	for _, cells := range [][]Cell{
		cell("dev/a", "dev/a", probe.TCP, 80, ok, ok),
		cell("dev/a", "dev/a", probe.UDP, 53, ok, silent),
		cell("dev/a", "prod/with-a-long-name", probe.TCP, 8080, silent, silent),
		cell("dev/a", "x", probe.TCP, 80, odd, silent),
		cell("node1", "dev/a", probe.TCP, 80, silent, ok),
		cell("node1", "dev/a", probe.UDP, 53, silent, refused),
		cell("node1", "prod/with-a-long-name", probe.TCP, 8080, ok, ok),
	} {
		m.Cells = append(m.Cells, cells...)
	}
	want := strings.TrimPrefix(`
           dev/a        prod/with-a-long-name  x
from \ to  80   53/udp  8080                   80
dev/a      yes  v4      -                      error
node1      v6   reset   yes
`, "\n")
	if diff := cmp.Diff(want, m.String()); diff != "" {
		t.Error(diff)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	got, err := Options{}.complete()
	if err != nil || got.Name != DefaultName || got.Nodes != 2 || got.Families != DualStack {
		t.Errorf("got %+v (%v)", got, err)
	}
	if got.Backend != VXLAN || got.Underlay != DualStack || got.Subnets != 1 ||
		got.RPFilter != RPFilterOff || got.MTU != 1500 {
		t.Errorf("got %+v", got)
	}
	if got, err := (Options{Families: IPv6}).complete(); err != nil || got.Underlay != IPv6 {
		t.Errorf("the underlay of IPv6 pods is %+v (%v), want IPv6", got, err)
	}
	for _, good := range []Options{
		{Backend: HostGW, Families: IPv4, Underlay: DualStack},
		{Backend: DirectRouting, Families: IPv4, Underlay: IPv6, Subnets: 2},
		{RPFilter: RPFilterStrict, MTU: 9000, DropPodSources: true},
		{NoAgent: true, Families: IPv6},
	} {
		if _, err := good.complete(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for _, bad := range []struct {
		options Options
		want    string
	}{
		{Options{Name: "Big"}, "lab name"},
		{Options{Name: "a.b"}, "lab name"},
		{Options{Name: "a/b"}, "lab name"},
		{Options{Name: "-a"}, "lab name"},
		{Options{Name: strings.Repeat("a", 21)}, "lab name"},
		{Options{Nodes: -1}, "nodes"},
		{Options{Nodes: maxNodes + 1}, "nodes"},
		{Options{Families: "ipx"}, "families of pods"},
		{Options{Underlay: "ipx"}, "families of the underlay"},
		{Options{Backend: "udp"}, "backend"},
		{Options{RPFilter: "1"}, "reverse path filter"},
		{Options{Subnets: 3}, "subnets"},
		{Options{MTU: 1280}, "MTU"},
		{Options{Backend: HostGW, Underlay: IPv4}, "only the underlay's families"},
		{Options{Backend: HostGW, Families: IPv6, Underlay: IPv4}, "only the underlay's families"},
		{Options{Backend: HostGW, Subnets: 2}, "same subnet"},
		{Options{NoAgent: true, Subnets: 2}, "without agents"},
	} {
		if got, err := bad.options.complete(); err == nil ||
			!strings.Contains(err.Error(), bad.want) {
			t.Errorf("%+v became %+v (%v), want an error about %s", bad.options, got, err, bad.want)
		}
	}
}

// No two hosts or pods of a lab may ever have the same address.
func TestPlanIsWithoutOverlaps(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		families := rapid.SampledFrom([]Families{DualStack, IPv4, IPv6})
		p := plan{pods: families.Draw(t, "pods"), underlay: families.Draw(t, "underlay"),
			subnets: rapid.IntRange(1, maxSubnets).Draw(t, "subnets")}
		draw := func(label string) nodeState {
			if rapid.Bool().Draw(t, label+" is an object only") {
				return p.ghost(rapid.IntRange(1, maxGhosts).Draw(t, label))
			}
			return p.node(rapid.IntRange(1, maxNodes).Draw(t, label))
		}
		a, b := draw("a"), draw("b")
		hosts := append(append(p.outside(), p.router(0)...), p.router(p.subnets-1)...)
		for i, cidr := range a.PodCIDRs {
			if !p.networks()[i].Contains(cidr.Addr()) || cidr != cidr.Masked() {
				t.Errorf("%s is no range in %s", cidr, p.networks()[i])
			}
			if a.Name != b.Name && cidr.Overlaps(b.PodCIDRs[i]) {
				t.Errorf("%s and %s share %s", a.Name, b.Name, cidr)
			}
			for _, addr := range append(hosts, b.Addrs...) {
				if cidr.Contains(addr) {
					t.Errorf("%s is a host's and a pod's", addr)
				}
			}
		}
		for i, addr := range a.Addrs {
			if a.Name != b.Name && addr == b.Addrs[i] || slices.Contains(hosts, addr) {
				t.Errorf("%s shares %s", a.Name, addr)
			}
		}
	})
}

// What the lab tells the agents is what they can read.
func TestNetConf(t *testing.T) {
	t.Parallel()
	for _, families := range []Families{DualStack, IPv4, IPv6} {
		for _, backend := range []Backend{VXLAN, HostGW, DirectRouting} {
			text, err := json.Marshal(Options{Families: families, Backend: backend}.netConf())
			must(t, err)
			got, err := overlay.ParseConfig(text)
			want := overlay.Config{Backend: overlay.VXLAN, VNI: 1, Port: 8472,
				DirectRouting: backend == DirectRouting}
			if backend == HostGW {
				want.Backend = overlay.HostGW
			}
			if families != IPv6 {
				want.Network = podNetwork4
			}
			if families != IPv4 {
				want.IPv6Network = podNetwork6
			}
			if err != nil || got != want {
				t.Errorf("%s: got %+v (%v), want %+v", text, got, err, want)
			}
		}
	}
}

// TestCheck: what is wrong with a lab is said before anything is built for it.
func TestCheck(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a lab needs root")
	}
	name := testName("check")
	must(t, Options{Name: name}.Check())
	must(t, os.MkdirAll(stateDir(name), 0o700))
	t.Cleanup(func() { must(t, os.Remove(stateDir(name))) })
	if err := (Options{Name: name}).Check(); err == nil ||
		!strings.Contains(err.Error(), "there is a lab "+name+" already") {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := (Options{Name: "../" + name}).Check(); err == nil {
		t.Error("a name that is a path")
	}
}
