package lab

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/internal/probe"
)

func at(addr netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }

func TestTable(t *testing.T) {
	t.Parallel()
	addr4, addr6 := netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("fd00::1")
	ok, silent, refused := probe.Result{OK: true}, probe.Result{Err: probe.ErrTimeout}, probe.Result{Err: probe.ErrReset}
	odd := probe.Result{Err: probe.ErrUnreachable}
	cell := func(from, to string, protocol probe.Protocol, port uint16, results ...probe.Result) []Cell {
		var cells []Cell
		for i, result := range results {
			addr := []netip.Addr{addr4, addr6}[i]
			cells = append(cells, Cell{From: from, To: to, Protocol: protocol, Dst: at(addr, port), Result: result})
		}
		return cells
	}
	var m Matrix
	for _, cells := range [][]Cell{
		cell("dev/a", "dev/a", probe.TCP, 80, ok, ok), cell("dev/a", "dev/a", probe.UDP, 53, ok, silent),
		cell("dev/a", "prod/with-a-long-name", probe.TCP, 8080, silent, silent), cell("dev/a", "x", probe.TCP, 80, odd, silent),
		cell("node1", "dev/a", probe.TCP, 80, silent, ok), cell("node1", "dev/a", probe.UDP, 53, silent, refused),
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
	for _, bad := range []Options{
		{Name: "Big"}, {Name: "a.b"}, {Name: "a/b"}, {Name: "-a"}, {Name: strings.Repeat("a", 21)},
		{Nodes: -1}, {Nodes: maxNodes + 1}, {Families: "ipx"},
	} {
		if got, err := bad.complete(); err == nil {
			t.Errorf("%+v became %+v, want an error", bad, got)
		}
	}
}

// No two hosts or pods of a lab may ever have the same address.
func TestPlanIsWithoutOverlaps(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := plan{rapid.SampledFrom([]Families{DualStack, IPv4, IPv6}).Draw(t, "families")}
		a := rapid.IntRange(1, maxNodes).Draw(t, "a")
		b := rapid.IntRange(1, maxNodes).Draw(t, "b")
		for i, cidr := range p.podCIDRs(a) {
			if a != b && cidr.Overlaps(p.podCIDRs(b)[i]) {
				t.Errorf("nodes %d and %d share %s", a, b, cidr)
			}
			for _, addr := range append(p.host(b), p.outside()...) {
				if cidr.Contains(addr) {
					t.Errorf("%s is a host's and a pod's", addr)
				}
			}
			if a != b && p.host(a)[i] == p.host(b)[i] {
				t.Errorf("nodes %d and %d share %s", a, b, p.host(a)[i])
			}
		}
	})
}

func TestServedPorts(t *testing.T) {
	t.Parallel()
	always := corev1.ContainerRestartPolicyAlways
	port := func(number int32, protocol corev1.Protocol) corev1.ContainerPort {
		return corev1.ContainerPort{ContainerPort: number, Protocol: protocol}
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{
			{Ports: []corev1.ContainerPort{port(1, corev1.ProtocolTCP)}}, // has ended before the pod serves
			{Ports: []corev1.ContainerPort{port(2, corev1.ProtocolUDP)}, RestartPolicy: &always},
		},
		Containers: []corev1.Container{
			{Ports: []corev1.ContainerPort{port(80, ""), port(80, corev1.ProtocolSCTP)}},
			{Ports: []corev1.ContainerPort{port(80, corev1.ProtocolTCP), port(65535, corev1.ProtocolTCP)}},
		},
	}}
	var got []string
	for _, p := range servedPorts(pod) {
		got = append(got, p.String())
	}
	if diff := cmp.Diff([]string{"udp/2", "tcp/80", "sctp/80", "tcp/65535"}, got); diff != "" {
		t.Error(diff)
	}
}

// Another process that got the number of one that we started must never be taken for it.
func TestProcessesAreKnownByTheirStart(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("cat")
	input, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	started, err := startTime(cmd.Process.Pid)
	must(t, err)
	if !isSame(cmd.Process.Pid, started) {
		t.Error("a process isn't itself")
	}
	if isSame(cmd.Process.Pid, started+"0") || isSame(os.Getpid(), started+"0") {
		t.Error("a process is taken for one that was started at another time")
	}
	must(t, input.Close())
	must(t, eventually(t.Context(), readyTimeout, "the process to end", func() (bool, error) {
		return !isSame(cmd.Process.Pid, started), nil // a zombie, which nobody has waited for
	}))
	must(t, cmd.Wait())
}
