package judge

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	netutils "k8s.io/utils/net"
)

// subject returns the pod whose policies govern an address, and whether there
// is one. It is nil for an attachment whose pod isn't known.
//
// On the node that looks, an attachment decides, also for a pod that has
// finished or whose object is gone: it keeps its last policy until it is
// detached.
func (w *World) subject(a netip.Addr) (pod *corev1.Pod, governed bool) {
	for _, at := range w.Attachments {
		if slices.Contains(at.Addresses, a) {
			return at.Pod, true
		}
	}
	pod = w.peer(a)
	return pod, pod != nil
}

// peer returns the pod that selectors mean by an address, or nil. A pod that
// has finished, or whose object is gone, is nobody.
func (w *World) peer(a netip.Addr) *corev1.Pod {
	for _, at := range w.Attachments {
		if slices.Contains(at.Addresses, a) {
			for _, pod := range w.Pods {
				if at.Pod != nil && samePod(pod, at.Pod) && alive(pod) {
					return pod
				}
			}
			return nil
		}
	}
	// "An address seen on two live pods: … the newest that isn't ending."
	var best *corev1.Pod
	for _, pod := range w.Pods {
		if !alive(pod) || !slices.Contains(podAddresses(pod), a) {
			continue
		}
		if best == nil || better(pod, best) {
			best = pod
		}
	}
	return best
}

func better(a, b *corev1.Pod) bool {
	if aEnds, bEnds := a.DeletionTimestamp != nil, b.DeletionTimestamp != nil; aEnds != bEnds {
		return bEnds
	}
	return a.CreationTimestamp.After(b.CreationTimestamp.Time)
}

// alive: a pod of the pod network that hasn't come to its end.
func alive(pod *corev1.Pod) bool {
	return !pod.Spec.HostNetwork && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

func samePod(a, b *corev1.Pod) bool {
	return a.Namespace == b.Namespace && a.Name == b.Name && a.UID == b.UID
}

// podAddresses returns every address that a pod has.
func podAddresses(pod *corev1.Pod) []netip.Addr {
	texts := []string{pod.Status.PodIP}
	for _, ip := range pod.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	return readable(texts)
}

// itself says whether a flow's two ends are one pod: that is allowed.
func (w *World) itself(f Flow) bool {
	source, sourceGoverned := w.subject(f.Source)
	destination, destinationGoverned := w.subject(f.Destination)
	if !sourceGoverned || !destinationGoverned {
		return false
	}
	return f.Source == f.Destination || source != nil && destination != nil && samePod(source, destination)
}

// isOwnNode says whether an address is one of the node that a pod runs on. An
// attachment's pod runs on the node that looks.
func (w *World) isOwnNode(a netip.Addr, pod *corev1.Pod) bool {
	name := w.Node
	if pod != nil && pod.Spec.NodeName != "" {
		name = pod.Spec.NodeName
	}
	for _, n := range w.Nodes {
		if n.Name == name && (slices.Contains(nodeAddresses(n), a) || slices.Contains(tunnelAddresses(n), a)) {
			return true
		}
	}
	return false
}

// standsFor returns the addresses that an ipBlock is held against for an
// address: its own, or for another node's tunnel address all of that node's
// addresses of the family.
func (w *World) standsFor(a netip.Addr) []netip.Addr {
	for _, n := range w.Nodes {
		if n.Name == w.Node || !slices.Contains(tunnelAddresses(n), a) {
			continue
		}
		out := []netip.Addr{a}
		for _, other := range nodeAddresses(n) {
			if other.Is4() == a.Is4() {
				out = append(out, other)
			}
		}
		return out
	}
	return []netip.Addr{a}
}

func nodeAddresses(n *corev1.Node) []netip.Addr {
	var texts []string
	for _, a := range n.Status.Addresses {
		texts = append(texts, a.Address)
	}
	return readable(texts)
}

// tunnelAddresses returns the network addresses of a node's pod CIDRs: that is
// what the tunnel device has.
func tunnelAddresses(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, text := range n.Spec.PodCIDRs {
		if _, cidr, err := netutils.ParseCIDRSloppy(text); err == nil {
			out = append(out, readable([]string{cidr.IP.String()})...)
		}
	}
	return out
}

// readable returns the addresses among some texts.
func readable(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		if a, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(text)); ok {
			out = append(out, a.Unmap())
		}
	}
	return out
}
