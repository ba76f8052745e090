package kubenetworkpolicies

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"
	api "sigs.k8s.io/network-policy-api/apis/v1beta1"
)

// What random clusters are made of: small, so that things collide.
var (
	namespaceNames = []string{"x", "y", "z"}
	values         = []string{"", "red", "blue"}
	portNames      = []string{"http", "dns"}
	cellPorts      = []int{79, 80, 81, 8080}
	protocols      = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
	networks       = []api.CIDR{"0.0.0.0/0", "10.0.0.0/30", "10.0.0.2/32", "10.0.0.4/31",
		"192.0.2.128/25", "::/0", "fd00::/126", "fd00::2/128", "2001:db8::80/121"}
	// strangers are addresses that no pod has, at the edges of the networks.
	strangers = []string{"10.0.0.0", "10.0.0.9", "192.0.2.127", "192.0.2.128", "192.0.2.255",
		"fd00::", "fd00::9", "2001:db8::7f", "2001:db8::80", "2001:db8::100"}
)

// world is a cluster.
type world struct {
	namespaces map[string]map[string]string // labels by name
	pods       []*corev1.Pod
	policies   []*networkingv1.NetworkPolicy
	tiers      []*api.ClusterNetworkPolicy
}

func drawWorld(t *rapid.T) *world {
	w := &world{namespaces: map[string]map[string]string{}}
	for _, name := range namespaceNames[:rapid.IntRange(1, 3).Draw(t, "namespaces")] {
		labels := drawLabels(t)
		labels[corev1.LabelMetadataName] = name
		w.namespaces[name] = labels
		for range rapid.IntRange(1, 2).Draw(t, "pods") {
			w.pods = append(w.pods, drawPod(t, name, len(w.pods)+1))
		}
	}
	known := slices.Sorted(maps.Keys(w.namespaces))
	directions := [][]networkingv1.PolicyType{{"Ingress", "Egress"}, {"Ingress"}, {"Egress"}}
	for i := range rapid.IntRange(2, 5).Draw(t, "tiers") {
		p := drawTier(t, fmt.Sprintf("t%d", i))
		if p.Spec.Tier == api.BaselineTier {
			directions = directions[:1] // see knownErrors
		}
		w.tiers = append(w.tiers, p)
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "policies") {
		np := drawPolicy(t, rapid.SampledFrom(known).Draw(t, "namespace"), fmt.Sprintf("p%d", i))
		np.Spec.PolicyTypes = rapid.SampledFrom(directions).Draw(t, "policyTypes")
		w.policies = append(w.policies, np)
	}
	return w
}

func drawLabels(t *rapid.T) map[string]string {
	out := map[string]string{}
	for _, key := range []string{"team", "level"} {
		if rapid.Bool().Draw(t, key) {
			out[key] = rapid.SampledFrom(values).Draw(t, "value")
		}
	}
	return out
}

// drawPod: the number distinguishes pods' names and addresses.
func drawPod(t *rapid.T, namespace string, number int) *corev1.Pod {
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("pod%d", number),
			UID: types.UID(fmt.Sprint(number)), Labels: drawLabels(t)},
		Spec: corev1.PodSpec{NodeName: "node1"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.0.0.%d", number),
			PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.0.0.%d", number)},
				{IP: fmt.Sprintf("fd00::%d", number)}}},
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "ports") { // of one name, in several containers
		out.Spec.Containers = append(out.Spec.Containers, corev1.Container{
			Name: fmt.Sprint(i), Ports: []corev1.ContainerPort{{
				Name:          rapid.SampledFrom(portNames).Draw(t, "name"),
				Protocol:      rapid.SampledFrom(protocols).Draw(t, "protocol"),
				ContainerPort: int32(rapid.SampledFrom(cellPorts).Draw(t, "number")),
			}}})
	}
	return out
}

func drawSelector(t *rapid.T) metav1.LabelSelector {
	var out metav1.LabelSelector
	keys := []string{"team", "level", corev1.LabelMetadataName}
	key := func() string { return rapid.SampledFrom(keys).Draw(t, "key") }
	values := append(slices.Clone(values), namespaceNames...)
	if rapid.IntRange(0, 2).Draw(t, "matchLabels") == 0 {
		out.MatchLabels = map[string]string{key(): rapid.SampledFrom(values).Draw(t, "value")}
	}
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}).Draw(t, "matchExpressions") {
		e := metav1.LabelSelectorRequirement{Key: key(),
			Operator: rapid.SampledFrom([]metav1.LabelSelectorOperator{"In", "NotIn", "Exists",
				"DoesNotExist"}).Draw(t, "operator")}
		if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
			e.Values = rapid.SliceOfNDistinct(rapid.SampledFrom(values), 1, 2, rapid.ID[string]).
				Draw(t, "values")
		}
		out.MatchExpressions = append(out.MatchExpressions, e)
	}
	return out
}

// drawPolicy: what NetworkPolicies mean by themselves is e2e/cyclonus' business.
func drawPolicy(t *rapid.T, namespace, name string) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	np.Spec.PodSelector = drawSelector(t)
	peer := func() []networkingv1.NetworkPolicyPeer {
		pods, namespaces := drawSelector(t), drawSelector(t)
		block := &networkingv1.IPBlock{CIDR: "10.0.0.0/30", Except: []string{"10.0.0.2/32"}}
		if rapid.Bool().Draw(t, "IPv6") {
			block = &networkingv1.IPBlock{CIDR: "fd00::/126", Except: []string{"fd00::2/128"}}
		}
		return rapid.SampledFrom([][]networkingv1.NetworkPolicyPeer{nil, {{PodSelector: &pods}},
			{{NamespaceSelector: &namespaces}, {PodSelector: &pods}},
			{{NamespaceSelector: &namespaces, PodSelector: &pods}},
			{{IPBlock: block}},
		}).Draw(t, "peers")
	}
	ports := func() []networkingv1.NetworkPolicyPort {
		protocol := rapid.SampledFrom(protocols).Draw(t, "protocol")
		port := rapid.SampledFrom([]intstr.IntOrString{intstr.FromInt32(80),
			intstr.FromString("http")}).Draw(t, "port")
		return rapid.SampledFrom([][]networkingv1.NetworkPolicyPort{nil,
			{{Protocol: &protocol}}, {{Protocol: &protocol, Port: &port}}}).Draw(t, "ports")
	}
	if rapid.Bool().Draw(t, "ingress") {
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peer(), Ports: ports()}}
	}
	if rapid.Bool().Draw(t, "egress") {
		np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: peer(), Ports: ports()}}
	}
	return np
}

func drawTier(t *rapid.T, name string) *api.ClusterNetworkPolicy {
	out := &api.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	out.Spec.Tier = rapid.SampledFrom([]api.Tier{api.AdminTier, api.BaselineTier}).Draw(t, "tier")
	// Of equal priorities the API lets any come first; both take the first name.
	out.Spec.Priority = rapid.Int32Range(0, 2).Draw(t, "priority")
	out.Spec.Subject.Namespaces, out.Spec.Subject.Pods = drawPods(t)
	for i := range rapid.IntRange(0, 4).Draw(t, "ingress") {
		rule := api.ClusterNetworkPolicyIngressRule{Action: drawAction(t)}
		for range rapid.IntRange(1, 3).Draw(t, "from") {
			namespaces, pods := drawPods(t)
			rule.From = append(rule.From,
				api.ClusterNetworkPolicyIngressPeer{Namespaces: namespaces, Pods: pods})
		}
		rule.Name, rule.Protocols = fmt.Sprint(i), drawProtocols(t, true)
		out.Spec.Ingress = append(out.Spec.Ingress, rule)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "egress") {
		rule := api.ClusterNetworkPolicyEgressRule{Action: drawAction(t), Name: fmt.Sprint(i)}
		onlyPods := true
		for range rapid.IntRange(1, 2).Draw(t, "to") {
			var peer api.ClusterNetworkPolicyEgressPeer
			if rapid.Bool().Draw(t, "networks") {
				onlyPods = false
				peer.Networks = rapid.SliceOfNDistinct(rapid.SampledFrom(networks), 1, 3,
					rapid.ID[api.CIDR]).Draw(t, "networks")
			} else {
				peer.Namespaces, peer.Pods = drawPods(t)
			}
			rule.To = append(rule.To, peer)
		}
		rule.Protocols = drawProtocols(t, onlyPods)
		out.Spec.Egress = append(out.Spec.Egress, rule)
	}
	return out
}

func drawAction(t *rapid.T) api.ClusterNetworkPolicyRuleAction {
	return rapid.SampledFrom([]api.ClusterNetworkPolicyRuleAction{"Accept", "Deny", "Pass"}).
		Draw(t, "action")
}

// drawPods draws a subject or a peer: one of the two.
func drawPods(t *rapid.T) (*metav1.LabelSelector, *api.NamespacedPod) {
	namespaces := drawSelector(t)
	if rapid.Bool().Draw(t, "namespaces") {
		return &namespaces, nil
	}
	return nil, &api.NamespacedPod{NamespaceSelector: namespaces, PodSelector: drawSelector(t)}
}

// drawProtocols: names of ports are no business of networks.
func drawProtocols(t *rapid.T, names bool) (out []api.ClusterNetworkPolicyProtocol) {
	for range rapid.IntRange(0, 2).Draw(t, "protocols") {
		port := &api.Port{Number: int32(rapid.SampledFrom(cellPorts).Draw(t, "number"))}
		if rapid.Bool().Draw(t, "range") {
			first := rapid.IntRange(0, len(cellPorts)-1).Draw(t, "first")
			last := rapid.IntRange(first, len(cellPorts)-1).Draw(t, "last")
			port = &api.Port{Range: &api.PortRange{Start: int32(cellPorts[first]),
				End: int32(cellPorts[last])}}
		}
		var item api.ClusterNetworkPolicyProtocol
		switch kind := rapid.IntRange(0, 3).Draw(t, "protocol"); {
		case kind == 0:
			item.TCP = &api.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}
		case kind == 1:
			item.UDP = &api.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}
		case kind == 2 || !names:
			item.SCTP = &api.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}
		default:
			item.DestinationNamedPort = rapid.SampledFrom(portNames).Draw(t, "name")
		}
		out = append(out, item)
	}
	return out
}

// asV1alpha2 is a policy in the version that the other one reads.
func asV1alpha2(p *api.ClusterNetworkPolicy) *v1alpha2.ClusterNetworkPolicy {
	out := &v1alpha2.ClusterNetworkPolicy{}
	text, err := json.Marshal(p)
	if err == nil {
		in := json.NewDecoder(bytes.NewReader(text))
		in.DisallowUnknownFields()
		err = in.Decode(out)
	}
	if err != nil {
		panic(err) // the types are the same
	}
	return out
}

// cells are connections between all pods, and with the strangers. A pod and itself have none.
func (w *world) cells(yield func(cell) bool) {
	type end struct {
		netip.Addr
		pod *corev1.Pod
	}
	var ends []end
	for _, pod := range w.pods {
		for _, a := range pod.Status.PodIPs {
			ends = append(ends, end{netip.MustParseAddr(a.IP), pod})
		}
	}
	for _, a := range strangers {
		ends = append(ends, end{netip.MustParseAddr(a), nil})
	}
	for _, from := range ends {
		for _, to := range ends {
			if from.Is4() != to.Is4() || from.pod == to.pod {
				continue
			}
			for _, protocol := range protocols {
				for _, port := range cellPorts {
					if !yield(cell{from.Addr, to.Addr, protocol, port}) {
						return
					}
				}
			}
		}
	}
}
