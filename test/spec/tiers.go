package spec

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	netutils "k8s.io/utils/net"
	networkpolicyapi "sigs.k8s.io/network-policy-api/apis/v1beta1"
)

// word is what a rule, or a tier, says of a flow. The API has the words Accept, Deny and Pass.
type word string

const (
	accept    word = "Accept"
	deny      word = "Deny"
	pass      word = "Pass"
	undecided word = ""
)

// tiered asks the tiers in their order: "Admin tier, NetworkPolicy tier, Baseline tier." side is
// what the NetworkPolicies say. "v1.NetworkPolicy always makes a final decision for selected pods."
// "If a given connection wasn't allowed or denied by any of the tiers, … all pods can communicate."
func (w *World) tiered(pod *corev1.Pod, direction networkingv1.PolicyType, f Flow) Side {
	if !w.placed(pod) {
		return Side{Governed: true}
	}
	s := w.side(pod, direction, f)
	switch w.tierSays(networkpolicyapi.AdminTier, pod, direction, f) {
	case accept:
		s.Allowed = true
		return s
	case deny:
		s.Allowed = false
		return s
	case pass, undecided:
	}
	if len(s.Isolating) > 0 {
		return s
	}
	s.Allowed = w.tierSays(networkpolicyapi.BaselineTier, pod, direction, f) != deny
	return s
}

// placed: where there are ClusterNetworkPolicies, a pod whose namespace isn't known carries
// nothing, as whom they select can't be known. Of a pod that isn't known (nil), its namespace isn't
// asked.
func (w *World) placed(pod *corev1.Pod) bool {
	if pod == nil || len(w.ClusterPolicies) == 0 {
		return true
	}
	_, known := w.namespaceLabels(pod.Namespace)
	return known
}

// tierSays asks the policies of a tier that apply to a pod: "Policies with lower priority values
// have higher precedence"; of equal ones, those with the first name. One whose tier can't be read
// comes before all.
func (w *World) tierSays(tier networkpolicyapi.Tier, pod *corev1.Pod,
	direction networkingv1.PolicyType, f Flow) word {
	policies := slices.Clone(w.ClusterPolicies)
	slices.SortFunc(policies, func(a, b *networkpolicyapi.ClusterNetworkPolicy) int {
		if c := cmp.Compare(precedence(a), precedence(b)); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, cnp := range policies {
		isBaseline := cnp.Spec.Tier == networkpolicyapi.BaselineTier
		if isBaseline != (tier == networkpolicyapi.BaselineTier) || !w.isSubject(cnp, pod) {
			continue
		}
		if said := w.policySays(cnp, direction, f); said != undecided {
			return said
		}
	}
	return undecided
}

func precedence(cnp *networkpolicyapi.ClusterNetworkPolicy) int64 {
	if cnp.Spec.Tier != networkpolicyapi.AdminTier &&
		cnp.Spec.Tier != networkpolicyapi.BaselineTier {
		return math.MinInt64
	}
	return int64(cnp.Spec.Priority)
}

// isSubject: "Note that host-networked pods are not included in subject selection." What can't be
// read of a subject matches all pods.
func (w *World) isSubject(cnp *networkpolicyapi.ClusterNetworkPolicy, pod *corev1.Pod) bool {
	labels, known := w.namespaceLabels(pod.Namespace)
	subject := cnp.Spec.Subject
	switch {
	case !known || pod.Spec.HostNetwork:
		return false
	case (subject.Namespaces == nil) == (subject.Pods == nil):
		return true
	case subject.Namespaces != nil:
		return subjectSelects(*subject.Namespaces, labels)
	}
	return subjectSelects(subject.Pods.NamespaceSelector, labels) &&
		subjectSelects(subject.Pods.PodSelector, pod.Labels)
}

// certain says whether whom the policy is for, and when, can be read. Otherwise its rules only
// deny.
func certain(cnp *networkpolicyapi.ClusterNetworkPolicy) bool {
	subject := cnp.Spec.Subject
	if cnp.Spec.Tier != networkpolicyapi.AdminTier &&
		cnp.Spec.Tier != networkpolicyapi.BaselineTier {
		return false
	}
	if subject.Namespaces != nil {
		return subject.Pods == nil && readableSelector(*subject.Namespaces)
	}
	return subject.Pods != nil && readableSelector(subject.Pods.NamespaceSelector) &&
		readableSelector(subject.Pods.PodSelector)
}

func readableSelector(s metav1.LabelSelector) bool {
	_, err := metav1.LabelSelectorAsSelector(&s)
	return err == nil
}

// anyPeer is a peer of either direction: "Exactly one of the fields must be set".
type anyPeer networkpolicyapi.ClusterNetworkPolicyEgressPeer

// policySays: "a rule that appears at the top … would take the highest precedence".
func (w *World) policySays(cnp *networkpolicyapi.ClusterNetworkPolicy,
	direction networkingv1.PolicyType, f Flow) word {
	if direction == networkingv1.PolicyTypeIngress {
		for _, r := range cnp.Spec.Ingress {
			var peers []anyPeer
			for _, p := range r.From {
				peers = append(peers, anyPeer{Namespaces: p.Namespaces, Pods: p.Pods})
			}
			if said := w.ruleSays(cnp, r.Action, peers, r.Protocols, direction, f); said != "" {
				return said
			}
		}
		return undecided
	}
	for _, r := range cnp.Spec.Egress {
		var peers []anyPeer
		for _, p := range r.To {
			peers = append(peers, anyPeer(p))
		}
		if said := w.ruleSays(cnp, r.Action, peers, r.Protocols, direction, f); said != "" {
			return said
		}
	}
	return undecided
}

// ruleSays: "In that case it should fail closed. For "Accept" rules, … treat the rule as matching
// no traffic. For "Deny" and "Pass" rules, … treat the rule as a 'Deny all' rule." An action that
// isn't known denies.
func (w *World) ruleSays(cnp *networkpolicyapi.ClusterNetworkPolicy,
	action networkpolicyapi.ClusterNetworkPolicyRuleAction, peers []anyPeer,
	protocols []networkpolicyapi.ClusterNetworkPolicyProtocol,
	direction networkingv1.PolicyType, f Flow) word {
	says := word(action)
	if says != accept && says != pass || says == pass && !certain(cnp) {
		says = deny
	}
	if !readableRule(says == accept, peers, protocols) || says == accept && !certain(cnp) {
		if says == accept {
			return undecided
		}
		return deny
	}
	other := f.Source
	if direction == networkingv1.PolicyTypeEgress {
		other = f.Destination
	}
	peerMatches := slices.ContainsFunc(peers, func(p anyPeer) bool {
		return w.anyPeerMatches(p, says == deny, other)
	})
	if !peerMatches || !w.protocolsMatch(protocols, direction, f) {
		return undecided
	}
	return says
}

// readableRule: "must be defined and contain at least one item"; each peer and protocol has exactly
// one field; "DomainNames is only supported for Accept rules"; named ports aren't for networks.
func readableRule(accepts bool, peers []anyPeer,
	protocols []networkpolicyapi.ClusterNetworkPolicyProtocol) bool {
	names, networks := false, false
	for _, p := range protocols {
		if !readableProtocol(p) {
			return false
		}
		names = names || p.DestinationNamedPort != ""
	}
	for _, p := range peers {
		if !readablePeer(accepts, p) {
			return false
		}
		networks = networks || len(p.Networks) > 0
	}
	return len(peers) > 0 && (!names || !networks)
}

func readablePeer(accepts bool, p anyPeer) bool {
	fields := 0
	for _, set := range []bool{p.Namespaces != nil, p.Pods != nil, p.Nodes != nil,
		len(p.Networks) > 0, len(p.DomainNames) > 0} {
		if set {
			fields++
		}
	}
	switch {
	case fields != 1 || p.Nodes != nil:
		return false
	case p.Namespaces != nil:
		return readableSelector(*p.Namespaces)
	case p.Pods != nil:
		return readableSelector(p.Pods.NamespaceSelector) && readableSelector(p.Pods.PodSelector)
	case len(p.DomainNames) > 0:
		return accepts
	}
	for _, text := range p.Networks {
		if _, _, err := netutils.ParseCIDRSloppy(string(text)); err != nil {
			return false
		}
	}
	return true
}

func readableProtocol(p networkpolicyapi.ClusterNetworkPolicyProtocol) bool {
	ports := portsOf(p)
	if p.DestinationNamedPort != "" {
		return len(ports) == 0 && len(validation.IsValidPortName(p.DestinationNamedPort)) == 0
	}
	if len(ports) != 1 || ports[0] == nil {
		return false
	}
	first, last := portEnds(ports[0])
	return first >= 1 && first <= last && last <= 65535
}

// portsOf has a port for each protocol that is set; nil where that has none.
func portsOf(p networkpolicyapi.ClusterNetworkPolicyProtocol) (out []*networkpolicyapi.Port) {
	if p.TCP != nil {
		out = append(out, p.TCP.DestinationPort)
	}
	if p.UDP != nil {
		out = append(out, p.UDP.DestinationPort)
	}
	if p.SCTP != nil {
		out = append(out, p.SCTP.DestinationPort)
	}
	return out
}

// portEnds: "You must specify either Port or Range."
func portEnds(p *networkpolicyapi.Port) (first, last int32) {
	switch {
	case p.Range == nil:
		return p.Number, p.Number
	case p.Number != 0:
		return 0, 0
	}
	return p.Range.Start, p.Range.End
}

// anyPeerMatches: "Note that host-networked pods are not included in this type of peer." Domain
// names match nothing.
func (w *World) anyPeerMatches(p anyPeer, denies bool, a netip.Addr) bool {
	if len(p.Networks) > 0 {
		return slices.ContainsFunc(p.Networks, func(text networkpolicyapi.CIDR) bool {
			return w.networkMatches(string(text), denies, a)
		})
	}
	pod := w.peer(a)
	if pod == nil {
		return false
	}
	labels, known := w.namespaceLabels(pod.Namespace)
	switch {
	case !known:
		return false
	case p.Namespaces != nil:
		return peerSelects(*p.Namespaces, labels)
	case p.Pods != nil:
		return peerSelects(p.Pods.NamespaceSelector, labels) &&
			peerSelects(p.Pods.PodSelector, pod.Labels)
	}
	return false
}

// networkMatches: as an ipBlock. A rule that denies also means a tunnel address by itself.
func (w *World) networkMatches(text string, denies bool, a netip.Addr) bool {
	if w.blockMatches(&networkingv1.IPBlock{CIDR: text}, a) {
		return true
	}
	_, cidr, err := netutils.ParseCIDRSloppy(text)
	return err == nil && denies && anyIn(cidr, []netip.Addr{a}, a.Is4())
}

// protocolsMatch: "If unspecified, protocol-specific attributes will not be used to match traffic."
func (w *World) protocolsMatch(list []networkpolicyapi.ClusterNetworkPolicyProtocol,
	direction networkingv1.PolicyType, f Flow) bool {
	if len(list) == 0 {
		return true
	}
	in := func(p *networkpolicyapi.Port) bool {
		first, last := portEnds(p)
		return first <= int32(f.Port) && int32(f.Port) <= last
	}
	for _, p := range list {
		switch {
		case p.TCP != nil && f.Protocol == TCP && in(p.TCP.DestinationPort),
			p.UDP != nil && f.Protocol == UDP && in(p.UDP.DestinationPort),
			p.SCTP != nil && f.Protocol == SCTP && in(p.SCTP.DestinationPort):
			return true
		}
		for protocol, number := range numbers {
			if p.DestinationNamedPort != "" && number == f.Protocol &&
				w.namedPortMatches(p.DestinationNamedPort, protocol, true, direction, f) {
				return true
			}
		}
	}
	return false
}
