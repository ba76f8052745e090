package cyclonus

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

// What random clusters are made of: small, so that things collide. Every object has the label
// teamLabel, and may have tierLabel. Objects are such as an API server accepts, and go round
// knownErrors.
const (
	teamLabel = "team"
	tierLabel = "tier"
)

var (
	teams = []string{"", "red", "blue"}
	tiers = []string{"front", "back"}

	portNames    = []string{"http", "dns", "metrics"}
	cellPorts    = []int{1, 79, 80, 81, 8080, 65535}
	blockExcepts = map[string][]string{ // what may be cut out of a block
		"0.0.0.0/0":        {"10.0.0.0/30", "10.0.0.2/32", "0.0.0.0/1", "255.255.255.255/32"},
		"10.0.0.0/29":      {"10.0.0.0/30", "10.0.0.2/32", "10.0.0.4/31"},
		"10.0.0.3/32":      {},
		"10.0.0.4/30":      {"10.0.0.4/32", "10.0.0.6/31"},
		"192.0.2.128/25":   {"192.0.2.128/26", "192.0.2.255/32"},
		"::/0":             {"fd00::/126", "fd00::2/128", "8000::/1"},
		"fd00::/125":       {"fd00::/126", "fd00::2/128", "fd00::4/127"},
		"fd00::3/128":      {},
		"2001:db8::80/121": {"2001:db8::80/122", "2001:db8::ff/128"},
	}
	// strangers are addresses that no pod has, at the edges of the blocks.
	strangers = []string{
		"0.0.0.0", "10.0.0.0", "10.0.0.7", "10.0.0.8", "127.255.255.255", "128.0.0.0",
		"192.0.2.127", "192.0.2.128", "192.0.2.191", "192.0.2.192",
		"192.0.2.255", "192.0.3.0", "255.255.255.255",
		"::", "fd00::", "fd00::7", "fd00::8", "7fff::", "8000::", "2001:db8::7f", "2001:db8::80",
		"2001:db8::c0", "2001:db8::ff", "2001:db8::100",
	}
)

// randomPod is a pod as both judges get it.
type randomPod struct {
	policy.Pod
	namespaceLabels map[string]string
}

// randomWorld is a cluster.
type randomWorld struct {
	namespaces map[string]map[string]string
	pods       []randomPod
	policies   []*networkingv1.NetworkPolicy
}

// TestRandomClusters: over random clusters and policies, policy and cyclonus agree on every cell:
// between all pods, and with hosts that are none, on every edge of blocks and ranges of ports.
func TestRandomClusters(t *testing.T) {
	t.Parallel()
	rounds := 1
	if os.Getenv("SLUICE_LONG") != "" {
		rounds = 100
	}
	var worlds, allowed, denied int
	for range rounds {
		rapid.Check(t, func(t *rapid.T) {
			w := drawWorld(t)
			worlds++
			yes, no := w.compare(t)
			allowed += yes
			denied += no
		})
	}
	t.Logf("proof: %d clusters: %d cells allowed, %d denied", worlds, allowed, denied)
	if !t.Failed() && (allowed == 0 || denied == 0) {
		t.Error("expected cells of both kinds")
	}
}

// compare asks both about every cell. It returns how many are allowed and denied.
func (w *randomWorld) compare(t *rapid.T) (allowed, denied int) {
	cluster := w.cluster()
	theirs := matcher.BuildNetworkPolicies(false, w.policies)
	ends := w.ends()
	for _, from := range ends {
		for _, to := range ends {
			if from.Is4() != to.Is4() || from.pod == nil && to.pod == nil || from.pod == to.pod {
				continue
			}
			for _, port := range cellPorts {
				for _, protocol := range protocols {
					traffic := trafficOf(from, to, port, protocol)
					want, got := theirs.IsTrafficAllowed(traffic).IsAllowed(),
						cluster.Explain(flowOf(traffic))
					if got.Allowed != want {
						t.Fatalf("%s to %s %s %d: cyclonus says allowed %v, policy %v: %s", from,
							to, protocol, port, want, got.Allowed, got)
					}
					if want {
						allowed++
					} else {
						denied++
					}
				}
			}
		}
	}
	return allowed, denied
}

// cluster is the world as policy gets it.
func (w *randomWorld) cluster() *cluster.Cluster {
	// cyclonus knows of no pod CIDRs
	c := cluster.New(cluster.Options{Node: "node1", PolicyOnly: true})
	c.SetNode(policy.Node{Name: "node1"})
	for name, labels := range w.namespaces {
		c.SetNamespace(name, labels)
	}
	for _, pod := range w.pods {
		c.SetPod(pod.Pod)
	}
	for _, np := range w.policies {
		c.SetPolicy(policy.Parse(np)) // a Problem costs no more than the item it names
	}
	return c
}

// end is one end of a connection; pod is nil for a stranger.
type end struct {
	netip.Addr
	pod *randomPod
}

// ends are all addresses of pods, and the strangers.
func (w *randomWorld) ends() []end {
	var out []end
	for i := range w.pods {
		for _, a := range w.pods[i].Addresses {
			out = append(out, end{a, &w.pods[i]})
		}
	}
	for _, s := range strangers {
		out = append(out, end{netip.MustParseAddr(s), nil})
	}
	return out
}

// trafficOf is a cell as cyclonus is asked about it.
func trafficOf(from, to end, port int, protocol corev1.Protocol) *matcher.Traffic {
	traffic := &matcher.Traffic{Source: from.peer(), Destination: to.peer(), ResolvedPort: port,
		Protocol: protocol}
	if to.pod != nil {
		number := flowOf(traffic).Protocol
		for p := range to.pod.Ports.All() {
			if p.Protocol == number && int(p.Number) == port {
				traffic.ResolvedPortName = p.Name
			}
		}
	}
	return traffic
}

func (e end) peer() *matcher.TrafficPeer {
	out := &matcher.TrafficPeer{IP: e.String()}
	if e.pod != nil {
		out.Internal = &matcher.InternalPeer{
			PodLabels: maps.Collect(e.pod.Labels.All()), NamespaceLabels: e.pod.namespaceLabels,
			Namespace: e.pod.ID.Namespace,
		}
	}
	return out
}

func drawWorld(t *rapid.T) *randomWorld {
	w := &randomWorld{namespaces: map[string]map[string]string{}}
	for i := range rapid.IntRange(1, 3).Draw(t, "namespaces") {
		name := namespaces[i]
		labels := drawLabels(t, name)
		labels[corev1.LabelMetadataName] = name
		w.namespaces[name] = labels
		for range rapid.IntRange(1, 2).Draw(t, "pods of "+name) {
			w.pods = append(w.pods, randomPod{drawPod(t, name, len(w.pods)+1), labels})
		}
	}
	for i := range rapid.IntRange(1, 4).Draw(t, "policies") {
		namespace := namespaces[rapid.IntRange(0, len(w.namespaces)-1).
			Draw(t, "namespace of a policy")]
		w.policies = append(w.policies, drawPolicy(t, namespace, fmt.Sprintf("p%d", i)))
	}
	return w
}

func drawLabels(t *rapid.T, of string) map[string]string {
	out := map[string]string{teamLabel: rapid.SampledFrom(teams).Draw(t, "team of "+of)}
	tier := rapid.SampledFrom(append(slices.Clone(tiers), "")).Draw(t, "tier of "+of)
	if tier != "" {
		out[tierLabel] = tier
	}
	return out
}

// drawPod: the number distinguishes pods' names and addresses.
func drawPod(t *rapid.T, namespace string, number int) policy.Pod {
	name := fmt.Sprintf("pod%d", number)
	out := policy.Pod{
		ID:     selector.Pod{Namespace: namespace, Name: name, UID: name},
		Labels: selector.LabelSetOf(drawLabels(t, name)),
		Node:   "node1",
		Addresses: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", number)),
			netip.MustParseAddr(fmt.Sprintf("fd00::%d", number))},
	}
	var ports []policy.PodPort
	taken := map[string]bool{} // cyclonus knows one name of a port
	for range rapid.IntRange(0, 3).Draw(t, "ports of "+name) {
		p := policy.PodPort{
			NamedPort: policy.NamedPort{
				Protocol: rapid.SampledFrom([]uint8{policy.ProtocolTCP, policy.ProtocolUDP,
					policy.ProtocolSCTP}).Draw(t, "protocol"),
				Name: rapid.SampledFrom(portNames).Draw(t, "name"),
			},
			Number: uint16(rapid.SampledFrom(cellPorts).Draw(t, "number")),
		}
		if key := fmt.Sprint(p.Protocol, p.Number); !taken[key] {
			taken[key] = true
			ports = append(ports, p)
		}
	}
	out.Ports = policy.PodPortsOf(ports...)
	return out
}

func drawSelector(t *rapid.T, what string) metav1.LabelSelector {
	var out metav1.LabelSelector
	switch rapid.IntRange(0, 3).Draw(t, what+": matchLabels") {
	case 1:
		out.MatchLabels = map[string]string{teamLabel: rapid.SampledFrom(teams).Draw(t, "value")}
	case 2:
		out.MatchLabels = map[string]string{tierLabel: rapid.SampledFrom(tiers).Draw(t, "value")}
	}
	for range rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "matchExpressions") {
		e := metav1.LabelSelectorRequirement{
			Key: rapid.SampledFrom([]string{teamLabel, tierLabel, "absent"}).Draw(t, "key"),
			Operator: rapid.SampledFrom([]metav1.LabelSelectorOperator{"In", "NotIn", "Exists",
				"DoesNotExist"}).Draw(t, "operator"),
		}
		if e.Operator == metav1.LabelSelectorOpNotIn {
			e.Key = teamLabel // which nothing lacks
		}
		if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
			e.Values = rapid.SliceOfNDistinct(
				rapid.SampledFrom(append(slices.Clone(teams), tiers...)), 1, 3, rapid.ID[string]).
				Draw(t, "values")
		}
		out.MatchExpressions = append(out.MatchExpressions, e)
	}
	return out
}

func drawPeer(t *rapid.T) networkingv1.NetworkPolicyPeer {
	kind := rapid.SampledFrom([]string{"pods", "namespaces", "both", "block"}).Draw(t, "peer")
	if kind == "block" {
		cidr := rapid.SampledFrom(slices.Sorted(maps.Keys(blockExcepts))).Draw(t, "cidr")
		out := &networkingv1.IPBlock{CIDR: cidr}
		if excepts := blockExcepts[cidr]; len(excepts) > 0 {
			out.Except = rapid.SliceOfNDistinct(rapid.SampledFrom(excepts), 0, len(excepts),
				rapid.ID[string]).Draw(t, "except")
		}
		return networkingv1.NetworkPolicyPeer{IPBlock: out}
	}
	var out networkingv1.NetworkPolicyPeer
	if kind != "namespaces" {
		s := drawSelector(t, "podSelector")
		out.PodSelector = &s
	}
	if kind != "pods" {
		s := drawSelector(t, "namespaceSelector")
		out.NamespaceSelector = &s
	}
	return out
}

func drawPort(t *rapid.T) networkingv1.NetworkPolicyPort {
	var out networkingv1.NetworkPolicyPort
	protocol := rapid.SampledFrom(append([]corev1.Protocol{""}, protocols...)).Draw(t, "protocol")
	if protocol != "" {
		out.Protocol = &protocol
	}
	switch rapid.SampledFrom([]string{"any", "name", "number", "range"}).Draw(t, "port") {
	case "name":
		name := intstr.FromString(rapid.SampledFrom(portNames).Draw(t, "name"))
		out.Port = &name
	case "number":
		number := intstr.FromInt32(int32(rapid.SampledFrom(cellPorts).Draw(t, "number")))
		out.Port = &number
	case "range":
		first := rapid.IntRange(0, len(cellPorts)-1).Draw(t, "first")
		last := int32(cellPorts[rapid.IntRange(first, len(cellPorts)-1).Draw(t, "last")])
		number := intstr.FromInt32(int32(cellPorts[first]))
		out.Port, out.EndPort = &number, &last
	}
	return out
}

func drawPolicy(t *rapid.T, namespace, name string) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: meta(namespace, name)}
	if rapid.Bool().Draw(t, "some pods") {
		np.Spec.PodSelector = drawSelector(t, "subject")
	}
	np.Spec.PolicyTypes = rapid.SampledFrom([][]networkingv1.PolicyType{{"Ingress"}, {"Egress"},
		{"Ingress", "Egress"}}).Draw(t, "policyTypes")
	draw := func(direction string) (peers [][]networkingv1.NetworkPolicyPeer,
		ports [][]networkingv1.NetworkPolicyPort) {
		for range rapid.IntRange(0, 2).Draw(t, direction) {
			peers = append(peers, rapid.SliceOfN(rapid.Custom(drawPeer), 0, 2).Draw(t, "peers"))
			ports = append(ports, rapid.SliceOfN(rapid.Custom(drawPort), 0, 2).Draw(t, "ports"))
		}
		return peers, ports
	}
	peers, ports := draw("ingress")
	for i := range peers {
		np.Spec.Ingress = append(np.Spec.Ingress,
			networkingv1.NetworkPolicyIngressRule{From: peers[i], Ports: ports[i]})
	}
	peers, ports = draw("egress")
	for i := range peers {
		np.Spec.Egress = append(np.Spec.Egress,
			networkingv1.NetworkPolicyEgressRule{To: peers[i], Ports: ports[i]})
	}
	return np
}
