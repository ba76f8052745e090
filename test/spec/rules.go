package spec

import (
	"net"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	netutils "k8s.io/utils/net"
)

// policyAllows says whether a rule of the policy's section matches the flow.
func (w *World) policyAllows(np *networkingv1.NetworkPolicy, direction networkingv1.PolicyType,
	f Flow) bool {
	if direction == networkingv1.PolicyTypeIngress {
		for _, rule := range np.Spec.Ingress {
			if w.ruleMatches(rule.Ports, rule.From, np.Namespace, direction, f) {
				return true
			}
		}
		return false
	}
	for _, rule := range np.Spec.Egress {
		if w.ruleMatches(rule.Ports, rule.To, np.Namespace, direction, f) {
			return true
		}
	}
	return false
}

// ruleMatches: "The traffic must match both ports and from" (and to). "Items in this list [of
// peers] are combined using a logical OR operation. If this field is empty or missing, this rule
// matches all sources."
func (w *World) ruleMatches(ports []networkingv1.NetworkPolicyPort,
	peers []networkingv1.NetworkPolicyPeer,
	namespace string, direction networkingv1.PolicyType, f Flow) bool {
	if len(peers) == 0 {
		return w.portsMatch(ports, false, direction, f)
	}
	other := f.Source
	if direction == networkingv1.PolicyTypeEgress {
		other = f.Destination
	}
	for _, peer := range peers {
		if w.peerMatches(peer, namespace, other) &&
			w.portsMatch(ports, peer.IPBlock == nil, direction, f) {
			return true
		}
	}
	return false
}

// portsMatch: "Each item in this list is combined using a logical OR. If this field is empty or
// missing, this rule matches all ports." Picked says that the other end matched a selector.
func (w *World) portsMatch(ports []networkingv1.NetworkPolicyPort, picked bool,
	direction networkingv1.PolicyType, f Flow) bool {
	if len(ports) == 0 {
		return true
	}
	for _, port := range ports {
		if w.portMatches(port, picked, direction, f) {
			return true
		}
	}
	return false
}

func (w *World) portMatches(item networkingv1.NetworkPolicyPort, picked bool,
	direction networkingv1.PolicyType, f Flow) bool {
	protocol := corev1.ProtocolTCP // "If not specified, this field defaults to TCP."
	if item.Protocol != nil {
		protocol = *item.Protocol
	}
	number, known := numbers[protocol]
	if !known || number != f.Protocol {
		return false // Unreadable, or another protocol.
	}
	if item.Port == nil {
		// "endPort cannot be defined if the port field is not defined."
		return item.EndPort == nil
	}
	if item.Port.Type == intstr.String {
		// "… or if the port field is defined as a named (string) port."
		return item.EndPort == nil &&
			w.namedPortMatches(item.Port.StrVal, protocol, picked, direction, f)
	}
	first, last := item.Port.IntVal, item.Port.IntVal
	if item.EndPort != nil {
		last = *item.EndPort // "inclusive"
	}
	if first < 1 || last > 65535 || last < first {
		return false // No port number, or "the endPort must be equal or greater than port".
	}
	return first <= int32(f.Port) && int32(f.Port) <= last
}

var numbers = map[corev1.Protocol]uint8{corev1.ProtocolTCP: TCP, corev1.ProtocolUDP: UDP,
	corev1.ProtocolSCTP: SCTP}

// namedPortMatches: name and protocol must be those of a port of a container or sidecar of the
// destination pod. An address that is no pod has no names.
//
// "With to empty, any pod of any namespace": a pod whose namespace object isn't known (yet) is in
// none, unless a podSelector of its own namespace picked it.
func (w *World) namedPortMatches(name string, protocol corev1.Protocol, picked bool,
	direction networkingv1.PolicyType, f Flow) bool {
	if len(validation.IsValidPortName(name)) > 0 {
		return false
	}
	pod := w.peer(f.Destination)
	if direction == networkingv1.PolicyTypeIngress {
		pod, _ = w.subject(f.Destination) // the isolated pod, whether or not others may meet it
	}
	if pod == nil || pod.Spec.HostNetwork {
		return false
	}
	_, known := w.namespaceLabels(pod.Namespace)
	if direction == networkingv1.PolicyTypeEgress && !known && !picked {
		return false
	}
	containers := pod.Spec.Containers
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(slices.Clip(containers), c)
		}
	}
	for _, c := range containers {
		for _, p := range c.Ports {
			has := p.Protocol
			if has == "" {
				has = corev1.ProtocolTCP
			}
			if p.Name == name && has == protocol && p.ContainerPort == int32(f.Port) && f.Port > 0 {
				return true
			}
		}
	}
	return false
}

func (w *World) peerMatches(peer networkingv1.NetworkPolicyPeer, namespace string,
	a netip.Addr) bool {
	switch {
	case peer.IPBlock != nil:
		// "If this field is set then neither of the other fields can be."
		return peer.PodSelector == nil && peer.NamespaceSelector == nil &&
			w.blockMatches(peer.IPBlock, a)
	case peer.PodSelector == nil && peer.NamespaceSelector == nil:
		return false // A peer without a selector or block isn't readable.
	}
	pod := w.peer(a)
	if pod == nil {
		return false // Outsiders and nodes are never picked by a selector.
	}
	// A part that is absent asks nothing of what it would select.
	if peer.PodSelector != nil && !peerSelects(*peer.PodSelector, pod.Labels) {
		return false
	}
	if peer.NamespaceSelector == nil {
		return pod.Namespace == namespace // "the policy's own namespace"
	}
	labels, known := w.namespaceLabels(pod.Namespace)
	return known && peerSelects(*peer.NamespaceSelector, labels)
}

// blockMatches: in cidr and in none of except. What can't be read costs the block, and so does an
// except outside cidr.
//
// "A node in an ipBlock: by its address on the underlay; by its tunnel address only where the block
// names that very address; none that it claims in except."
func (w *World) blockMatches(block *networkingv1.IPBlock, a netip.Addr) bool {
	_, cidr, err := netutils.ParseCIDRSloppy(block.CIDR)
	if err != nil {
		return false
	}
	var excepts []*net.IPNet
	for _, text := range block.Except {
		_, except, err := netutils.ParseCIDRSloppy(text)
		if err != nil || !cidr.Contains(except.IP) && !except.Contains(cidr.IP) {
			return false
		}
		excepts = append(excepts, except)
	}
	self := []netip.Addr{a}
	in, out := self, self
	node := w.tunnelOf(a)
	if node != nil {
		in, out = w.underlayAddresses(node), append(nodeAddresses(node), w.tunnelAddresses(node)...)
	}
	for _, except := range excepts {
		if anyIn(except, out, a.Is4()) {
			return false
		}
	}
	ones, bits := cidr.Mask.Size()
	return ones == bits && anyIn(cidr, self, a.Is4()) || anyIn(cidr, in, a.Is4())
}

func anyIn(cidr *net.IPNet, addresses []netip.Addr, is4 bool) bool {
	for _, a := range addresses {
		if a.Is4() == is4 && cidr.Contains(a.AsSlice()) {
			return true
		}
	}
	return false
}
