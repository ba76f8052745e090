package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
	"github.com/sluice-net/sluice/test/cases"
)

// meaningOffset is how much higher every port of the cases is here, in flows and in policies: the
// cases have nodes serve too, and the low ports of a cluster's nodes aren't ours. What results is
// below the NodePorts and the ports of clients.
const meaningOffset = 20_000

// meaningWorld is the world of the cases in a cluster. Its hosts are nodes, under the nodes' names.
type meaningWorld struct {
	*world

	nodeOf    map[string]string // of pods
	out, out2 string            // nodes that stand for the hosts outside; empty: there is none
	noSCTP    string            // why SCTP can't be tried
}

// servedPorts are those of every pod and node.
func servedPorts() []string {
	var ports []string
	for protocol, numbers := range map[string][]uint16{
		testprogram.TCP: cases.TCPPorts, testprogram.UDP: cases.UDPPorts,
		testprogram.SCTP: cases.SCTPPorts,
	} {
		for _, number := range numbers {
			ports = append(ports,
				testprogram.Port{Protocol: protocol, Number: number + meaningOffset}.String())
		}
	}
	slices.Sort(ports)
	slices.Reverse(ports) // the probed one comes first among those of TCP, whichever it is
	return ports
}

// newNodeServers makes a world of hosts: one server in every node's own network.
func newNodeServers(ctx context.Context) *world {
	w := newWorld()
	w.namespace(ctx, "nodes", nil)
	var members []member
	for _, node := range w.cluster.Nodes(ctx) {
		if framework.NodeReady(&node) {
			members = append(members, member{name: "nodes/" + node.Name, node: node.Name,
				serves: servedPorts(), inHostNetwork: true})
		}
	}
	w.start(ctx, members...)
	for _, node := range w.cluster.Nodes(ctx) {
		if h, ok := w.hosts["nodes/"+node.Name]; ok {
			h.addresses = framework.NodeAddresses(&node)
			w.hosts[node.Name] = h
		}
	}
	return w
}

// newMeaningWorld makes the pods of the cases: on the first worker, or apart on two of them.
func newMeaningWorld(ctx context.Context, servers *world, apart bool) *meaningWorld {
	w := &meaningWorld{world: newWorld(), nodeOf: map[string]string{}}
	w.hosts = servers.hosts
	workers := w.cluster.Workers(ctx)
	if apart && len(workers) < 2 {
		ginkgo.Skip("this cluster has one node for pods")
	}
	for _, ns := range cases.Namespaces() {
		labels := map[string]string{}
		if env := ns.Labels["env"]; env != "" {
			labels["env"] = env
		}
		w.namespace(ctx, ns.Name, labels)
	}
	var members []member
	used := map[string]bool{}
	for _, pod := range cases.Pods() {
		name := pod.Namespace + "/" + pod.Name
		node := workers[0].Name
		if apart && (name == "dev/db" || name == "prod/web") {
			node = workers[1].Name
		}
		w.nodeOf[name], used[node] = node, true
		ports := slices.Clone(pod.Spec.Containers[0].Ports)
		for i := range ports {
			ports[i].ContainerPort += meaningOffset
		}
		members = append(members,
			member{name: name, node: node, labels: pod.Labels, ports: ports, serves: servedPorts()})
	}
	w.start(ctx, members...)
	for _, node := range w.cluster.Nodes(ctx) {
		switch _, serves := w.hosts[node.Name]; {
		case used[node.Name] || !serves:
		case w.out == "":
			w.out = node.Name
		case w.out2 == "":
			w.out2 = node.Name
		}
	}
	if w.noSCTP = w.sctpFails(ctx, 80+meaningOffset); w.noSCTP != "" {
		ginkgo.AddReportEntry("SCTP left out of the meaning table", w.noSCTP)
	}
	return w
}

// end is the world's name of an end of a case's flow, given the other end: "node" is the node of
// the pod at the other end.
func (w *meaningWorld) end(name, other string) string {
	switch name {
	case cases.NodeName:
		return w.nodeOf[other]
	case "out":
		return w.out
	case "out2":
		return w.out2
	}
	return name
}

// cellsOf makes cells of a case's flows, and says which flows this cluster can't carry, and why.
func (w *meaningWorld) cellsOf(texts []string) (cells []*cell, leftOut []string) {
	for _, f := range cases.MustFlows(texts) {
		from, to := w.end(f.From, f.To), w.end(f.To, f.From)
		if from == "" || to == "" {
			leftOut = append(leftOut, f.String()+": no other node can stand for a host outside")
			continue
		}
		if f.Protocol == testprogram.SCTP && w.noSCTP != "" {
			leftOut = append(leftOut, f.String()+": "+w.noSCTP)
			continue
		}
		port := int(f.Port)
		if f.Protocol != testprogram.ICMP {
			port += meaningOffset
		}
		for _, family := range w.cluster.Families {
			if !slices.Contains(f.Families,
				map[corev1.IPFamily]int{corev1.IPv4Protocol: 4, corev1.IPv6Protocol: 6}[family]) {
				continue
			}
			if c, ok := w.cell(from, to, f.Protocol, port, family); ok {
				cells = append(cells, c)
			} else {
				leftOut = append(leftOut, fmt.Sprintf("%s: an end has no %s address", f, family))
			}
		}
	}
	return cells, leftOut
}

// unfit says why a case can't be held against this world, or "".
func (w *meaningWorld) unfit(tc cases.Case) string {
	for _, spec := range tc.Policies {
		names := func(texts ...string) bool {
			return slices.ContainsFunc(texts, func(text string) bool {
				return strings.Contains(spec, text)
			})
		}
		switch {
		case names(`"`+cases.NodeName+`"`) && w.nodeOf["dev/web"] != w.nodeOf["prod/web"]:
			return "it names the one node of its pods, which run on two here"
		case w.out == "" && names(`"out`, "192.0.2.", "2001:db8:1:"),
			w.out2 == "" && names(`"out2"`, "192.0.2.", "2001:db8:1:"):
			return "it names hosts outside, and there are too few other nodes to stand for them"
		}
	}
	return ""
}

// render makes a case's policies, with this world's addresses, names and ports.
func (w *meaningWorld) render(specs map[string]string) []*networkingv1.NetworkPolicy {
	adapted := map[string]string{}
	for key, spec := range specs {
		adapted[key] = w.replacer().Replace(spec)
	}
	out := w.renderWith(adapted, func(name string, family int) string {
		if name == cases.NodeName {
			name = w.nodeOf["dev/web"]
		}
		return w.template(w.end(name, ""), family)
	})
	for _, np := range out {
		shiftPorts(&np.Spec)
	}
	return out
}

// replacer puts this cluster's names and addresses for those that are written out in the cases:
// blocks with both hosts outside, a larger one, and one with the second host alone. Of a family
// that the cluster doesn't have, the cases' own stay, which no pod has.
func (w *meaningWorld) replacer() *strings.Replacer {
	pairs := []string{"kubernetes.io/metadata.name: ops",
		"kubernetes.io/metadata.name: " + w.namespaces["ops"]}
	for _, family := range w.cluster.Families {
		if w.out == "" || w.out2 == "" {
			break
		}
		out, out2 := framework.OfFamily(w.addresses(w.out), family),
			framework.OfFamily(w.addresses(w.out2), family)
		if !out.IsValid() || !out2.IsValid() {
			continue
		}
		block := cover([]netip.Addr{out, out2})
		larger := netip.PrefixFrom(block.Addr(), block.Bits()-1).Masked()
		gomega.ExpectWithOffset(1, larger.Overlaps(w.podBlock(family))).To(gomega.BeFalse(),
			"%s, round the nodes %s and %s, must not hold the pods' %s", larger, w.out, w.out2,
			w.podBlock(family))
		both, wide, one := block.String(), larger.String(),
			netip.PrefixFrom(out2, out2.BitLen()).String()
		if family == corev1.IPv4Protocol {
			pairs = append(pairs, "192.0.2.0/24", both, "192.0.0.0/16", wide, "192.0.2.16/28", one,
				"192.0.2.20/32", one, "192.0.2.20/31", one)
		} else {
			pairs = append(pairs, "2001:db8:1::/64", both, "2000::/3", wide, "2001:db8:1::20/124",
				one, "2001:db8:1::20/128", one)
		}
	}
	return strings.NewReplacer(pairs...)
}

// shiftPorts adds meaningOffset to every number.
func shiftPorts(spec *networkingv1.NetworkPolicySpec) {
	shift := func(ports []networkingv1.NetworkPolicyPort) {
		for i := range ports {
			if ports[i].Port != nil && ports[i].Port.Type == intstr.Int {
				ports[i].Port.IntVal += meaningOffset
			}
			if ports[i].EndPort != nil {
				*ports[i].EndPort += meaningOffset
			}
		}
	}
	for i := range spec.Ingress {
		shift(spec.Ingress[i].Ports)
	}
	for i := range spec.Egress {
		shift(spec.Egress[i].Ports)
	}
}
