package security

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/e2e/lab/kubelet"
	"github.com/sluice-net/sluice/test/probe"
)

const hostPort = 8080

// A pod with host ports, who has them next, and who uses them.
var (
	published = []corev1.ContainerPort{
		{ContainerPort: 80, HostPort: hostPort},
		{ContainerPort: 53, HostPort: hostPort, Protocol: corev1.ProtocolUDP},
	}
	first  = pod{name: "first", node: "node2", app: "first", ports: published}
	second = pod{name: "second", node: "node2", app: "second", ports: published}
	beside = pod{name: "beside", node: "node2", app: "client"}
)

// TestHostPorts: a port of a node leads to a pod from everywhere, until the pod is gone, and then
// to its next owner.
func TestHostPorts(t *testing.T) {
	t.Parallel()
	for _, filter := range []lab.RPFilter{lab.RPFilterOff, lab.RPFilterStrict} {
		t.Run(string(filter), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lab.Options{RPFilter: filter})
			w.start(remote, beside)
			for _, way := range w.ways() {
				if r := w.Connect(t.Context(), way.from, way.proto, way.to); r.OK {
					t.Errorf("%s, before anybody has the port: %s", way, r)
				}
			}
			w.start(first)
			w.answeredBy(first)
			w.judged()
			w.changesOwner()
		})
	}
}

// way is a way to the host ports.
type way struct {
	from  string
	proto probe.Protocol
	to    netip.AddrPort
}

func (w way) String() string { return fmt.Sprintf("%s to %s %s", w.from, w.proto, w.to) }

// ways are all of them.
func (w *world) ways() []way {
	w.t.Helper()
	var all []way
	for _, proto := range []probe.Protocol{probe.TCP, probe.UDP} {
		for _, family := range families {
			for _, from := range []string{lab.Outside, "node1", "node2", remote.place(),
				beside.place()} {
				all = append(all, way{from, proto, w.at("node2", family, hostPort)})
			}
		}
		all = append(all,
			way{"node2", proto, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), hostPort)})
	}
	return all
}

// answeredBy demands that all ways lead to a pod, also from itself.
func (w *world) answeredBy(p pod) {
	w.t.Helper()
	all := w.ways()
	for _, family := range families {
		for _, proto := range []probe.Protocol{probe.TCP, probe.UDP} {
			all = append(all, way{p.place(), proto, w.at("node2", family, hostPort)})
		}
	}
	for _, way := range all {
		r := w.reached(way.from, way.proto, way.to)
		if r.OK && !strings.HasPrefix(r.Reply, p.place()+" ") {
			w.t.Errorf("%s: answered by %q", way, r.Reply)
		}
	}
}

// judged: policy sees who it is that uses a host port, and the pod's own port.
func (w *world) judged() {
	w.t.Helper()
	w.policy("first",
		`{podSelector: {matchLabels: {app: first}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}]}`)
	for _, family := range families {
		to := w.at("node2", family, hostPort)
		w.stopped(lab.Outside, probe.TCP, to)
		w.stopped(beside.place(), probe.UDP, to)
		w.reached(beside.place(), probe.TCP, to)
		w.reached("node2", probe.TCP, to)
	}
	w.must(w.Delete(w.t.Context(), policyManifest("first", "{}")))
	for _, family := range families {
		w.reached(lab.Outside, probe.TCP, w.at("node2", family, hostPort))
	}
}

// changesOwner: clients that never stop, from one port, follow the host port to the pod that has it
// next.
func (w *world) changesOwner() {
	w.t.Helper()
	var flows []*probe.Flow
	for _, from := range []string{lab.Outside, "node1"} {
		for _, family := range families {
			flow, err := w.OpenFlow(from, probe.UDP, w.at("node2", family, hostPort),
				probe.Within(patience))
			w.must(err)
			w.t.Cleanup(flow.Close)
			flows = append(flows, flow)
			w.keepSending("queries of "+from, from, func() {
				_ = probe.SendUDP(flow.LocalAddr(), w.at("node2", family, hostPort))
			})
		}
	}
	w.end(first)
	for _, way := range w.ways() {
		if r := w.Connect(w.t.Context(), way.from, way.proto, way.to); r.OK {
			w.t.Errorf("%s, when its owner is gone: %s", way, r)
		}
	}
	w.start(second)
	w.answeredBy(second)
	for _, flow := range flows {
		w.eventually("the flow of "+flow.LocalAddr().String()+" to follow the port", func() bool {
			return flow.Echo() == nil
		})
	}
}

// TestBandwidth: a pod's limits are on its link, and go with it.
func TestBandwidth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Nodes: 1})
	qdiscs := func() string { return w.command("node1", "tc", "qdisc", "show") }
	limited := pod{name: "limited", node: "node1", ports: served, annotations: map[string]string{
		kubelet.IngressBandwidthAnnotation: "8M", kubelet.EgressBandwidthAnnotation: "16M",
	}}
	unlimited := pod{name: "unlimited", node: "node1"}
	w.start(unlimited)
	if got := qdiscs(); strings.Contains(got, "tbf") {
		t.Errorf("without limits there is\n%s", got)
	}
	w.start(limited)
	// the agent sets them beside the ADD, which doesn't wait
	for _, want := range []string{"rate 8Mbit", "rate 16Mbit", "ingress"} {
		w.eventually("a limit with "+want, func() bool { return strings.Contains(qdiscs(), want) })
	}
	for _, family := range families {
		w.reached(unlimited.place(), probe.TCP, w.at(limited.place(), family, 80))
		w.reached(limited.place(), probe.ICMP, w.at(unlimited.place(), family, 0))
	}
	w.end(limited)
	w.eventually("the limits to go", func() bool {
		return !strings.Contains(qdiscs(), "tbf") &&
			!strings.Contains(w.command("node1", "ip", "link"), "slub")
	})
}
