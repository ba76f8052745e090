package randomcluster

import (
	"net/netip"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

func addrs(in ...string) []netip.Addr {
	out := make([]netip.Addr, len(in))
	for i, s := range in {
		out[i] = netip.MustParseAddr(s)
	}
	return out
}

// The universe: addresses that pods have, addresses that none has, and ports on both sides of every
// boundary.
var (
	Addresses = addrs("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.128", "fd00::1",
		"fd00::2", "fd00::3")
	blocks = []string{"0.0.0.0/0", "10.0.0.0/30", smallBlock, "10.0.0.128/25", "::/0",
		"fd00::2/127", "255.255.255.255/32"}
	ranges = []string{"10.0.0.0/32", "10.0.0.127/32", "10.0.0.0/30", allOfThem, "10.0.0.128/25",
		"fd00::/64", "fd00::2/127"}
	Strangers = addrs("0.0.0.0", "10.0.0.0", "10.0.0.127", "10.0.0.129", "255.255.255.255",
		"fd00::", "fd00::4", "192.0.2.1")
	Ports = []uint16{0, 1, 79, 80, 81, 8080, 65535}
)

func labelsGen() *rapid.Generator[map[string]string] {
	return rapid.MapOfN(rapid.SampledFrom([]string{"app", "env"}),
		rapid.SampledFrom([]string{"", "x", "y"}), 0, 2)
}

func selectorGen() *rapid.Generator[metav1.LabelSelector] {
	return rapid.Custom(func(t *rapid.T) metav1.LabelSelector {
		out := metav1.LabelSelector{
			MatchLabels: rapid.MapOfN(rapid.SampledFrom([]string{"app", "env"}),
				rapid.SampledFrom([]string{"", "x"}), 0, 1).Draw(t, "matchLabels")}
		for range rapid.IntRange(0, 1).Draw(t, "expressions") {
			op := rapid.SampledFrom([]metav1.LabelSelectorOperator{"In", "NotIn", "Exists",
				"DoesNotExist", "Odd"}).Draw(t, "operator")
			e := metav1.LabelSelectorRequirement{
				Key: rapid.SampledFrom([]string{"app", "env"}).Draw(t, "key"), Operator: op}
			if op == "In" || op == "NotIn" {
				e.Values = rapid.SliceOfN(rapid.SampledFrom([]string{"", "x", "y"}), 0, 2).
					Draw(t, "values")
			}
			out.MatchExpressions = append(out.MatchExpressions, e)
		}
		return out
	})
}

func peerGen() *rapid.Generator[networkingv1.NetworkPolicyPeer] {
	return rapid.Custom(func(t *rapid.T) networkingv1.NetworkPolicyPeer {
		var out networkingv1.NetworkPolicyPeer
		if rapid.Bool().Draw(t, "block") {
			out.IPBlock = &networkingv1.IPBlock{
				CIDR:   rapid.SampledFrom(blocks).Draw(t, "cidr"),
				Except: rapid.SliceOfN(rapid.SampledFrom(blocks), 0, 2).Draw(t, "except"),
			}
			return out
		}
		if rapid.Bool().Draw(t, "pods") {
			s := selectorGen().Draw(t, "podSelector")
			out.PodSelector = &s
		}
		if rapid.Bool().Draw(t, "namespaces") {
			s := selectorGen().Draw(t, "namespaceSelector")
			out.NamespaceSelector = &s
		}
		return out
	})
}

func portGen() *rapid.Generator[networkingv1.NetworkPolicyPort] {
	return rapid.Custom(func(t *rapid.T) networkingv1.NetworkPolicyPort {
		var out networkingv1.NetworkPolicyPort
		p := rapid.SampledFrom([]corev1.Protocol{"", "TCP", "UDP", "SCTP", "ODD"}).
			Draw(t, "protocol")
		if p != "" {
			out.Protocol = &p
		}
		switch rapid.IntRange(0, 3).Draw(t, "port") {
		case 1:
			out.Port = &intstr.IntOrString{Type: intstr.String,
				StrVal: rapid.SampledFrom([]string{namedPort, "dns", "80"}).Draw(t, "name")}
		case 2, 3:
			out.Port = &intstr.IntOrString{
				IntVal: int32(rapid.SampledFrom(Ports).Draw(t, "number"))}
			if rapid.Bool().Draw(t, "range") {
				end := int32(rapid.SampledFrom(Ports).Draw(t, "endPort"))
				out.EndPort = &end
			}
		}
		return out
	})
}

func policyGen(namespace, name string) *rapid.Generator[*networkingv1.NetworkPolicy] {
	return rapid.Custom(func(t *rapid.T) *networkingv1.NetworkPolicy {
		np := &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		np.Spec.PodSelector = selectorGen().Draw(t, "subject")
		np.Spec.PolicyTypes = rapid.SliceOfN(
			rapid.SampledFrom([]networkingv1.PolicyType{"Ingress", "Egress", "Odd"}), 0, 2).
			Draw(t, "types")
		for range rapid.IntRange(0, 2).Draw(t, "ingress") {
			np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
				From:  rapid.SliceOfN(peerGen(), 0, 2).Draw(t, "from"),
				Ports: rapid.SliceOfN(portGen(), 0, 2).Draw(t, "ports"),
			})
		}
		for range rapid.IntRange(0, 2).Draw(t, "egress") {
			np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{
				To:    rapid.SliceOfN(peerGen(), 0, 2).Draw(t, "to"),
				Ports: rapid.SliceOfN(portGen(), 0, 2).Draw(t, "ports"),
			})
		}
		return np
	})
}

// alikeGen draws policies that differ in little: they isolate the same pods, on the same ports.
func alikeGen(namespace, name string) *rapid.Generator[*networkingv1.NetworkPolicy] {
	return rapid.Custom(func(t *rapid.T) *networkingv1.NetworkPolicy {
		peers := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) networkingv1.NetworkPolicyPeer {
			if rapid.Bool().Draw(t, "block") {
				return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{
					CIDR: rapid.SampledFrom(blocks).Draw(t, "cidr")}}
			}
			return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{
				MatchLabels: rapid.MapOfN(rapid.SampledFrom([]string{"app", "env"}),
					rapid.SampledFrom([]string{"", "x", "y"}), 0, 1).Draw(t, "peer")}}
		}), 0, 3)
		ports := rapid.SampledFrom([][]networkingv1.NetworkPolicyPort{nil,
			{{Port: &intstr.IntOrString{IntVal: 80}}},
			{{Port: &intstr.IntOrString{Type: intstr.String, StrVal: namedPort}}}})
		np := &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		np.Spec.PolicyTypes = []networkingv1.PolicyType{"Ingress", "Egress"}
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{
			{From: peers.Draw(t, "from"), Ports: ports.Draw(t, "ports")}}
		np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{
			{To: peers.Draw(t, "to"), Ports: ports.Draw(t, "ports")}}
		return np
	})
}

// UIDs, as API servers give them.
const (
	uuid1 = "11111111-1111-4111-8111-111111111111"
	uuid2 = "22222222-2222-4222-8222-222222222222"
)

// anyUID is a pod's UID by a text, mostly one that an API server could give.
func anyUID(t *rapid.T, text string) string {
	if rapid.IntRange(0, 3).Draw(t, "UID") == 0 {
		return text
	}
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(text)).String()
}

func podGen(namespace, name string) *rapid.Generator[policy.Pod] {
	return rapid.Custom(func(t *rapid.T) policy.Pod {
		return policy.Pod{
			ID: selector.Pod{Namespace: namespace, Name: name,
				UID: rapid.SampledFrom([]string{uuid1, uuid1, uuid2, "u3"}).Draw(t, "uid")},
			Labels: selector.LabelSetOf(labelsGen().Draw(t, "labels")),
			Addresses: rapid.SliceOfNDistinct(rapid.SampledFrom(Addresses), 0, 2,
				rapid.ID[netip.Addr]).Draw(t, "addresses"),
			Node:        rapid.SampledFrom([]string{"n1", "n2", "n2", "n3", ""}).Draw(t, "node"),
			HostNetwork: rapid.IntRange(0, 9).Draw(t, "host") == 0,
			Terminating: rapid.IntRange(0, 4).Draw(t, "terminating") == 0,
			Finished:    rapid.IntRange(0, 9).Draw(t, "finished") == 0,
			Created:     time.Unix(int64(rapid.IntRange(0, 2).Draw(t, "created")), 0),
			Ports: policy.PodPortsOf(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) policy.PodPort {
				return policy.PodPort{
					NamedPort: policy.NamedPort{
						Protocol: rapid.SampledFrom([]uint8{policy.ProtocolTCP,
							policy.ProtocolUDP}).Draw(t, "protocol"),
						Name: rapid.SampledFrom([]string{namedPort, "dns"}).Draw(t, "name"),
					},
					Number: rapid.SampledFrom(Ports).Draw(t, "number"),
				}
			}), 0, 2).Draw(t, "ports")...),
		}
	})
}
