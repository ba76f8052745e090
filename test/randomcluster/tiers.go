package randomcluster

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	networkpolicyapi "sigs.k8s.io/network-policy-api/apis/v1beta1"
)

// networks are CIDRs of ClusterNetworkPolicies round all those addresses, and one that can't be
// read.
var networks = []networkpolicyapi.CIDR{"0.0.0.0/0", "::/0", "10.0.0.0/30", smallBlock,
	"10.0.0.64/26", "10.0.0.64/32", "192.0.2.0/28", "fd00::2/127", "2001:db8::/32", "10.0.0.0/33"}

// smallBlock is a block of two addresses, and namedPort a name of ports.
const smallBlock, namedPort = "10.0.0.2/31", "http"

// oneIn draws whether something rare is the case.
func oneIn(t *rapid.T, n int, what string) bool { return rapid.IntRange(1, n).Draw(t, what) == n }

// clusterPolicyGen draws a ClusterNetworkPolicy. Some have what an API server of today refuses: an
// older one, or a newer one with fields that aren't known here, may have let it in.
func clusterPolicyGen(name string) *rapid.Generator[*networkpolicyapi.ClusterNetworkPolicy] {
	return rapid.Custom(func(t *rapid.T) *networkpolicyapi.ClusterNetworkPolicy {
		out := &networkpolicyapi.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
		out.Spec.Tier = rapid.SampledFrom([]networkpolicyapi.Tier{networkpolicyapi.AdminTier,
			networkpolicyapi.AdminTier, networkpolicyapi.BaselineTier}).Draw(t, "tier")
		if oneIn(t, 20, "odd tier") {
			out.Spec.Tier = "Odd"
		}
		out.Spec.Priority = rapid.Int32Range(0, 2).Draw(t, "priority")
		namespaces, pods := somePods(t)
		out.Spec.Subject.Namespaces, out.Spec.Subject.Pods = namespaces, pods
		for range rapid.IntRange(0, 3).Draw(t, "ingress") {
			out.Spec.Ingress = append(out.Spec.Ingress,
				networkpolicyapi.ClusterNetworkPolicyIngressRule{
					Action:    action(t),
					From:      rapid.SliceOfN(rapid.Custom(ingressPeer), 0, 2).Draw(t, "from"),
					Protocols: protocols(t),
				})
		}
		for range rapid.IntRange(0, 3).Draw(t, "egress") {
			out.Spec.Egress = append(out.Spec.Egress,
				networkpolicyapi.ClusterNetworkPolicyEgressRule{
					Action:    action(t),
					To:        rapid.SliceOfN(rapid.Custom(egressPeer), 0, 2).Draw(t, "to"),
					Protocols: protocols(t),
				})
		}
		return out
	})
}

func action(t *rapid.T) networkpolicyapi.ClusterNetworkPolicyRuleAction {
	if oneIn(t, 20, "odd action") {
		return "Odd"
	}
	return rapid.SampledFrom([]networkpolicyapi.ClusterNetworkPolicyRuleAction{"Accept", "Deny",
		"Pass"}).Draw(t, "action")
}

// somePods draws a subject or a peer: mostly one of the two is set.
func somePods(t *rapid.T) (*metav1.LabelSelector, *networkpolicyapi.NamespacedPod) {
	namespaces := selectorGen().Draw(t, "namespaces")
	pods := &networkpolicyapi.NamespacedPod{
		NamespaceSelector: selectorGen().Draw(t, "namespaceSelector"),
		PodSelector:       selectorGen().Draw(t, "podSelector"),
	}
	switch rapid.IntRange(0, 20).Draw(t, "kind") {
	case 0:
		return nil, nil
	case 1:
		return &namespaces, pods
	case 2, 3, 4, 5, 6, 7, 8, 9:
		return &namespaces, nil
	}
	return nil, pods
}

func ingressPeer(t *rapid.T) (out networkpolicyapi.ClusterNetworkPolicyIngressPeer) {
	out.Namespaces, out.Pods = somePods(t)
	return out
}

func egressPeer(t *rapid.T) (out networkpolicyapi.ClusterNetworkPolicyEgressPeer) {
	if rapid.Bool().Draw(t, "pods") {
		out.Namespaces, out.Pods = somePods(t)
		return out
	}
	if oneIn(t, 20, "domain") {
		out.DomainNames = []networkpolicyapi.DomainName{"example.org"}
		return out
	}
	out.Networks = rapid.SliceOfN(rapid.SampledFrom(networks), 1, 2).Draw(t, "networks")
	return out
}

func protocols(t *rapid.T) []networkpolicyapi.ClusterNetworkPolicyProtocol {
	if rapid.Bool().Draw(t, "all protocols") {
		return nil
	}
	return rapid.SliceOfN(rapid.Custom(protocol), 1, 2).Draw(t, "protocols")
}

func protocol(t *rapid.T) (out networkpolicyapi.ClusterNetworkPolicyProtocol) {
	port := &networkpolicyapi.Port{Number: somePort(t)}
	if rapid.Bool().Draw(t, "range") {
		port = &networkpolicyapi.Port{Range: &networkpolicyapi.PortRange{Start: somePort(t),
			End: somePort(t)}}
	}
	switch rapid.IntRange(0, 11).Draw(t, "protocol") {
	case 0:
		out.TCP = &networkpolicyapi.ClusterNetworkPolicyProtocolTCP{} // of a newer API
	case 1, 2, 3, 4:
		out.TCP = &networkpolicyapi.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}
	case 5, 6:
		out.UDP = &networkpolicyapi.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}
	case 7:
		out.SCTP = &networkpolicyapi.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}
	case 8, 9:
		out.DestinationNamedPort = rapid.SampledFrom([]string{namedPort, "dns", "80"}).
			Draw(t, "name")
	case 10:
		out.DestinationNamedPort = namedPort
		out.UDP = &networkpolicyapi.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}
	}
	return out
}

func somePort(t *rapid.T) int32 { return int32(rapid.SampledFrom(Ports).Draw(t, "number")) }
