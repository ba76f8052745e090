package randomcluster

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

// eachRule calls f with the lists of every rule, which it may change.
func eachRule(np *networkingv1.NetworkPolicy,
	f func(*[]networkingv1.NetworkPolicyPeer, *[]networkingv1.NetworkPolicyPort)) {
	for i := range np.Spec.Ingress {
		f(&np.Spec.Ingress[i].From, &np.Spec.Ingress[i].Ports)
	}
	for i := range np.Spec.Egress {
		f(&np.Spec.Egress[i].To, &np.Spec.Egress[i].Ports)
	}
}

func redrawBlocks(t *rapid.T, np *networkingv1.NetworkPolicy) {
	block := rapid.SampledFrom(objectBlocks)
	eachRule(np,
		func(peers *[]networkingv1.NetworkPolicyPeer, _ *[]networkingv1.NetworkPolicyPort) {
			for _, p := range *peers {
				if p.IPBlock != nil {
					p.IPBlock.CIDR = block.Draw(t, "cidr")
					for i := range p.IPBlock.Except {
						p.IPBlock.Except[i] = block.Draw(t, "except")
					}
				}
			}
		})
}

// spoil puts something into a policy that an API server refuses, or refuses today: what the policy
// means has to stay defined.
func spoil(t *rapid.T, np *networkingv1.NetworkPolicy) {
	port, peer := badPort(t), badPeer(t)
	inPort, inPeer := rapid.Bool().Draw(t, "in ports"), rapid.Bool().Draw(t, "in peers")
	eachRule(np,
		func(peers *[]networkingv1.NetworkPolicyPeer, ports *[]networkingv1.NetworkPolicyPort) {
			if inPort {
				*ports = append(*ports, port)
			}
			if inPeer {
				*peers = append(*peers, peer)
			}
		})
	if rapid.Bool().Draw(t, "in subject") {
		np.Spec.PodSelector = *badSelector(t)
	}
}

func badPort(t *rapid.T) networkingv1.NetworkPolicyPort {
	number := func(n int32) *intstr.IntOrString { return &intstr.IntOrString{IntVal: n} }
	name := func(s string) *intstr.IntOrString {
		return &intstr.IntOrString{Type: intstr.String, StrVal: s}
	}
	protocol, end := corev1.Protocol(""), int32(81)
	return rapid.SampledFrom([]networkingv1.NetworkPolicyPort{
		{Protocol: &protocol}, {EndPort: &end}, {Port: name(namedPort), EndPort: &end},
		{Port: name("HTTP")}, {Port: name("")},
		{Port: number(0)}, {Port: number(-1)}, {Port: number(65536)},
		{Port: number(82), EndPort: &end}, {Port: number(65536 + 80)},
	}).Draw(t, "bad port")
}

func badPeer(t *rapid.T) networkingv1.NetworkPolicyPeer {
	everybody := &metav1.LabelSelector{}
	return rapid.SampledFrom([]networkingv1.NetworkPolicyPeer{
		{},
		{PodSelector: everybody, IPBlock: &networkingv1.IPBlock{CIDR: "0.0.0.0/0"}},
		{PodSelector: badSelector(t)},
		{NamespaceSelector: badSelector(t)},
		{NamespaceSelector: everybody, PodSelector: badSelector(t)},
		{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/24",
			Except: []string{"10.0.0.0/24", "10.0.0.0/23"}}},
		{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/25", Except: []string{"10.0.0.128/26"}}},
		{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/24",
			Except: []string{smallBlock, "fd00::/127"}}},
		{IPBlock: &networkingv1.IPBlock{CIDR: "fd00::/64", Except: []string{"nonsense"}}},
	}).Draw(t, "bad peer")
}

// badSelector draws a selector with a requirement that can't be read and, sometimes, one that can.
func badSelector(t *rapid.T) *metav1.LabelSelector {
	out := rapid.SampledFrom([]metav1.LabelSelector{
		{MatchLabels: map[string]string{"app": "not a value"}},
		{MatchLabels: map[string]string{"not a key": "x"}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "In"}}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "app", Operator: "NotIn", Values: []string{"not a value"}}}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "app", Operator: "Exists", Values: []string{"x"}}}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "app", Operator: "Gt", Values: []string{"1"}}}},
	}).Draw(t, "bad selector")
	if rapid.Bool().Draw(t, "and a good one") {
		out.MatchExpressions = append(slices.Clip(out.MatchExpressions),
			metav1.LabelSelectorRequirement{Key: "env", Operator: metav1.LabelSelectorOpExists})
	}
	return &out
}
