// Package spec says what policies mean, a second time: a literal reading of the documentation of
// the API types (networking/v1, policy.networking.k8s.io/v1beta1) and of docs/meaning.md, written
// apart from packages policy and selector and sharing no code with them. Tests compare the two;
// where they differ, the documentation decides.
//
// Its model is the cluster as the API server shows it: lists of objects, which it walks from the
// start for each question. Nothing is compiled, cached or indexed, so that each function can be
// held against the sentence it stands for. It is slow, and not for use outside tests.
package spec

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	networkpolicyapi "sigs.k8s.io/network-policy-api/apis/v1beta1"
)

// Numbers of protocols, as in the IP header.
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
	SCTP   = 132
)

// World is the cluster as one node sees it. Its objects stay as they are once it has been asked. It
// is for one goroutine.
type World struct {
	Namespaces []*corev1.Namespace
	Pods       []*corev1.Pod
	Nodes      []*corev1.Node
	Policies   []*networkingv1.NetworkPolicy
	// ClusterPolicies are of the tiers before and after the Policies'.
	ClusterPolicies []*networkpolicyapi.ClusterNetworkPolicy
	// Node is the name of the node that looks.
	Node string
	// Attachments are the pods that are wired on this node. They may be empty: then pods have the
	// addresses of their status.
	Attachments []Attachment
	// PodToNode is the setting that lets pods reach their own node.
	PodToNode bool
	// PolicyOnly says that another plugin gives pods their addresses.
	PolicyOnly bool
	// PodNetworks are the ranges of all pods; nil if they aren't known.
	PodNetworks []netip.Prefix

	addressesOf map[string][]netip.Addr // of nodes, as far as they were asked for
}

// Attachment is a pod that has been wired on the node that looks.
type Attachment struct {
	// Pod is the object as it was last seen, also when it is no longer in World.Pods; nil if no
	// object was ever seen. Pods of the host's network are never wired.
	Pod       *corev1.Pod
	Addresses []netip.Addr
	// FromStatus: the addresses are in the pod's status only.
	FromStatus bool
}

// Flow is the first packet of a connection, after DNAT and before SNAT. Port is the destination's,
// 0 for protocols that have none.
type Flow struct {
	Source, Destination netip.Addr
	Protocol            uint8
	Port                uint16
}

// Ruling is the answer for one flow.
type Ruling struct {
	Allowed         bool
	Egress, Ingress Side
}

// Side is the answer for one end of a flow.
type Side struct {
	Allowed bool
	// Governed says that the end is a pod whose policies have a say here.
	Governed bool
	// Isolating names the NetworkPolicies that isolate the pod in this direction, as
	// namespace/name, in the order of World.Policies.
	Isolating []string
	// Allowing names those of them that have a rule which the flow matches.
	Allowing []string
}

// Rule says what becomes of a flow. "Any two pods, same node or not: the source's egress and the
// destination's ingress must both allow."
func (w *World) Rule(f Flow) Ruling {
	r := Ruling{Egress: w.egress(f), Ingress: w.ingress(f)}
	r.Allowed = r.Egress.Allowed && r.Ingress.Allowed
	return r
}

func (w *World) egress(f Flow) Side {
	source, governed := w.subject(f.Source)
	if !governed {
		return Side{Allowed: true}
	}
	if w.placed(source) && w.has(source, f.Source, f.Destination) ||
		w.PodToNode && w.isOwnNode(f.Destination, f.Source) {
		return Side{Allowed: true, Governed: true}
	}
	if source == nil { // An attachment whose pod isn't known carries nothing.
		return Side{Governed: true}
	}
	return w.tiered(source, networkingv1.PolicyTypeEgress, f)
}

func (w *World) ingress(f Flow) Side {
	destination, governed := w.subject(f.Destination)
	if !governed {
		return Side{Allowed: true}
	}
	// "… OR if the traffic source is the pod's local node" (NetworkPolicySpec.Ingress).
	if w.placed(destination) && w.has(destination, f.Destination, f.Source) ||
		w.isOwnNode(f.Source, f.Destination) {
		return Side{Allowed: true, Governed: true}
	}
	if destination == nil {
		return Side{Governed: true}
	}
	return w.tiered(destination, networkingv1.PolicyTypeIngress, f)
}

// side asks each policy. A pod that none isolates is open; one that is isolated has what any rule
// of any of its policies allows.
func (w *World) side(pod *corev1.Pod, direction networkingv1.PolicyType, f Flow) Side {
	s := Side{Governed: true}
	for _, np := range w.Policies {
		if !appliesTo(np, pod) || !isolates(np, direction) {
			continue
		}
		name := np.Namespace + "/" + np.Name
		s.Isolating = append(s.Isolating, name)
		if w.policyAllows(np, direction, f) {
			s.Allowing = append(s.Allowing, name)
		}
	}
	s.Allowed = len(s.Isolating) == 0 || len(s.Allowing) > 0
	return s
}

// appliesTo: "podSelector selects the pods to which this NetworkPolicy object applies … all pods in
// the policy's namespace." Pods of the host's network are never selected.
func appliesTo(np *networkingv1.NetworkPolicy, pod *corev1.Pod) bool {
	return pod.Namespace == np.Namespace && !pod.Spec.HostNetwork &&
		subjectSelects(np.Spec.PodSelector, pod.Labels)
}

// isolates: "If this field is not specified, it will default based on the existence of ingress or
// egress rules; policies that contain an egress section are assumed to affect egress, and all
// policies … ingress." An entry that is neither is lost.
func isolates(np *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) bool {
	specified := false
	for _, t := range np.Spec.PolicyTypes {
		if t == direction {
			return true
		}
		if t == networkingv1.PolicyTypeIngress || t == networkingv1.PolicyTypeEgress {
			specified = true
		}
	}
	if specified {
		return false
	}
	return direction == networkingv1.PolicyTypeIngress || len(np.Spec.Egress) > 0
}
