package spec

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	netutils "k8s.io/utils/net"
	networkpolicyapi "sigs.k8s.io/network-policy-api/apis/v1beta1"
)

// Strangers are addresses that no object of a test names.
var Strangers = []netip.Addr{netip.MustParseAddr("203.0.113.99"),
	netip.MustParseAddr("2001:db8:ffff::99")}

// Flows calls f for one flow of every class that the world's objects can distinguish, and a few
// more: from and to the addresses of pods, attachments, nodes and tunnels, both ends of every block
// and what lies next to them, and a stranger; every port that an object names and its neighbours;
// every protocol that ports can be of, ICMP, and one more (GRE).
func (w *World) Flows(f func(Flow)) {
	addresses, ports := w.Addresses(), w.Ports()
	for _, source := range addresses {
		for _, destination := range addresses {
			if source.Is4() != destination.Is4() {
				continue
			}
			icmp := uint8(ICMP)
			if source.Is6() {
				icmp = ICMPv6
			}
			f(Flow{source, destination, icmp, 0})
			f(Flow{source, destination, 47, 0})
			for _, protocol := range []uint8{TCP, UDP, SCTP} {
				for _, port := range ports {
					f(Flow{source, destination, protocol, port})
				}
			}
		}
	}
}

// Addresses lists an address of every class.
func (w *World) Addresses() []netip.Addr {
	out := slices.Clone(Strangers)
	for _, pod := range w.Pods {
		out = append(out, podAddresses(pod)...)
	}
	for _, at := range w.Attachments {
		out = append(out, at.Addresses...)
	}
	for _, n := range w.Nodes {
		out = append(append(out, nodeAddresses(n)...), w.tunnelAddresses(n)...)
	}
	for _, np := range w.Policies {
		for _, rule := range np.Spec.Ingress {
			out = append(out, blockEdges(rule.From)...)
		}
		for _, rule := range np.Spec.Egress {
			out = append(out, blockEdges(rule.To)...)
		}
	}
	for _, cnp := range w.ClusterPolicies {
		for _, rule := range cnp.Spec.Egress {
			for _, peer := range rule.To {
				for _, text := range peer.Networks {
					out = append(out, edges(string(text))...)
				}
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func blockEdges(peers []networkingv1.NetworkPolicyPeer) []netip.Addr {
	var out []netip.Addr
	for _, peer := range peers {
		if peer.IPBlock == nil {
			continue
		}
		for _, text := range append([]string{peer.IPBlock.CIDR}, peer.IPBlock.Except...) {
			out = append(out, edges(text)...)
		}
	}
	return out
}

// edges are the ends of a CIDR, and what lies next to them.
func edges(text string) []netip.Addr {
	_, cidr, err := netutils.ParseCIDRSloppy(text)
	if err != nil {
		return nil
	}
	first, _ := netip.AddrFromSlice(cidr.IP)
	bytes := slices.Clone(cidr.IP)
	for i := range bytes {
		bytes[i] |= ^cidr.Mask[len(cidr.Mask)-len(bytes)+i]
	}
	last, _ := netip.AddrFromSlice(bytes)
	first, last = first.Unmap(), last.Unmap()
	var out []netip.Addr
	for _, a := range []netip.Addr{first.Prev(), first, last, last.Next()} {
		if a.IsValid() && !a.Is4In6() {
			out = append(out, a)
		}
	}
	return out
}

// Ports lists a port of every class.
func (w *World) Ports() []uint16 {
	numbers := []int32{1, 65535}
	for _, pod := range w.Pods {
		for _, containers := range [][]corev1.Container{pod.Spec.Containers,
			pod.Spec.InitContainers} {
			for _, c := range containers {
				for _, p := range c.Ports {
					numbers = append(numbers, p.ContainerPort)
				}
			}
		}
	}
	add := func(ports []networkingv1.NetworkPolicyPort) {
		for _, p := range ports {
			if p.Port != nil && p.Port.Type == intstr.Int {
				numbers = append(numbers, p.Port.IntVal-1, p.Port.IntVal, p.Port.IntVal+1)
			}
			if p.EndPort != nil {
				numbers = append(numbers, *p.EndPort-1, *p.EndPort, *p.EndPort+1)
			}
		}
	}
	for _, np := range w.Policies {
		for _, rule := range np.Spec.Ingress {
			add(rule.Ports)
		}
		for _, rule := range np.Spec.Egress {
			add(rule.Ports)
		}
	}
	numbers = append(numbers, w.clusterPorts()...)
	slices.Sort(numbers)
	var out []uint16
	for _, n := range slices.Compact(numbers) {
		if n >= 0 && n <= 65535 {
			out = append(out, uint16(n))
		}
	}
	return out
}

// clusterPorts are the ports that ClusterNetworkPolicies name, and their neighbours.
func (w *World) clusterPorts() (out []int32) {
	add := func(list []networkpolicyapi.ClusterNetworkPolicyProtocol) {
		for _, p := range list {
			for _, port := range portsOf(p) {
				if port != nil {
					first, last := portEnds(port)
					out = append(out, first-1, first, first+1, last-1, last, last+1)
				}
			}
		}
	}
	for _, cnp := range w.ClusterPolicies {
		for _, rule := range cnp.Spec.Ingress {
			add(rule.Protocols)
		}
		for _, rule := range cnp.Spec.Egress {
			add(rule.Protocols)
		}
	}
	return out
}
