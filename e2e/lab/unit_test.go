package lab

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/test/probe"
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
	if got.Backend != VXLAN || got.Underlay != DualStack || got.Subnets != 1 || got.RPFilter != RPFilterOff || got.MTU != 1500 {
		t.Errorf("got %+v", got)
	}
	if got, err := (Options{Families: IPv6}).complete(); err != nil || got.Underlay != IPv6 {
		t.Errorf("the underlay of IPv6 pods is %+v (%v), want IPv6", got, err)
	}
	for _, good := range []Options{
		{Backend: HostGW, Families: IPv4, Underlay: DualStack}, {Backend: DirectRouting, Families: IPv4, Underlay: IPv6, Subnets: 2},
		{RPFilter: RPFilterStrict, MTU: 9000, DropPodSources: true}, {NoAgent: true, Families: IPv6},
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
		if got, err := bad.options.complete(); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%+v became %+v (%v), want an error about %s", bad.options, got, err, bad.want)
		}
	}
}

// No two hosts or pods of a lab may ever have the same address.
func TestPlanIsWithoutOverlaps(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		families := rapid.SampledFrom([]Families{DualStack, IPv4, IPv6})
		p := plan{pods: families.Draw(t, "pods"), underlay: families.Draw(t, "underlay"), subnets: rapid.IntRange(1, maxSubnets).Draw(t, "subnets")}
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
			want := overlay.Config{Backend: overlay.VXLAN, VNI: 1, Port: 8472, DirectRouting: backend == DirectRouting}
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

func TestCapabilityArgs(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
		{ContainerPort: 80}, {ContainerPort: 53, HostPort: 5353, Protocol: corev1.ProtocolUDP, HostIP: "192.168.0.1"},
	}}}}}
	for _, test := range []struct {
		annotations map[string]string
		want        string // JSON, or the start of an error
	}{
		{nil, ""},
		{map[string]string{IngressBandwidthAnnotation: "10M"}, `,"bandwidth":{"ingressRate":10000000,"ingressBurst":4294967295}`},
		{map[string]string{EgressBandwidthAnnotation: "1Mi"}, `,"bandwidth":{"egressRate":1048576,"egressBurst":4294967295}`},
		{map[string]string{EgressBandwidthAnnotation: "fast"}, "annotation kubernetes.io/egress-bandwidth"},
		{map[string]string{IngressBandwidthAnnotation: "10"}, "annotation kubernetes.io/ingress-bandwidth"},
	} {
		pod.Annotations = test.annotations
		args, err := capabilityArgs(pod)
		if strings.HasPrefix(test.want, "annotation") {
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("%v: got %v (%v), want an error", test.annotations, args, err)
			}
			continue
		}
		must(t, err)
		ports := args["portMappings"]
		delete(args, "portMappings")
		portsJSON, err := json.Marshal(ports)
		must(t, err)
		restJSON, err := json.Marshal(args)
		must(t, err)
		want := `[{"hostPort":5353,"containerPort":53,"protocol":"udp","hostIP":"192.168.0.1"}]`
		if string(portsJSON) != want || string(restJSON) != "{"+strings.TrimPrefix(test.want, ",")+"}" {
			t.Errorf("%v: got %s and %s", test.annotations, portsJSON, restJSON)
		}
	}
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
	if err := (Options{Name: name}).Check(); err == nil || !strings.Contains(err.Error(), "there is a lab "+name+" already") {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := (Options{Name: "../" + name}).Check(); err == nil {
		t.Error("a name that is a path")
	}
}
