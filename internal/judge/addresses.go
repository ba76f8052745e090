package judge

import (
	"net"
	"net/netip"
	"slices"
	"strings"

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
	if at := w.attachment(a); at != nil {
		return at.Pod, true
	}
	pod = w.peer(a)
	return pod, pod != nil
}

// attachment returns the attachment that has an address, or nil. Two can have
// one where another plugin says which pods there are: then a pod that others may
// meet comes before one that is yet to be known, and that before one at its end.
func (w *World) attachment(a netip.Addr) *Attachment {
	var best *Attachment
	for i := range w.Attachments {
		if at := &w.Attachments[i]; slices.Contains(at.Addresses, a) && (best == nil || w.comesBefore(at.Pod, best.Pod)) {
			best = at
		}
	}
	return best
}

func (w *World) comesBefore(a, b *corev1.Pod) bool {
	switch aExists, bExists := w.exists(a), w.exists(b); {
	case aExists != bExists:
		return aExists
	case a == nil || b == nil:
		return b != nil
	}
	return better(a, b)
}

// exists: the pod is there, and not at its end.
func (w *World) exists(pod *corev1.Pod) bool {
	return pod != nil && alive(pod) && slices.ContainsFunc(w.Pods, func(p *corev1.Pod) bool { return samePod(p, pod) })
}

// peer returns the pod that selectors mean by an address, or nil. A pod that
// has finished, or whose object is gone, is nobody.
func (w *World) peer(a netip.Addr) *corev1.Pod {
	if at := w.attachment(a); at != nil {
		if w.exists(at.Pod) {
			return at.Pod
		}
		return nil
	}
	var best *corev1.Pod
	for _, pod := range w.Pods {
		if alive(pod) && slices.Contains(podAddresses(pod), a) && (best == nil || better(pod, best)) {
			best = pod
		}
	}
	return best
}

// better: "an address seen on two live pods: … the newest that isn't ending."
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

// isOwnNode says whether an address is one of the node that the pod with
// another address runs on. What is attached here runs here, whatever the
// object says that was seen last.
func (w *World) isOwnNode(a, of netip.Addr) bool {
	pod, _ := w.subject(of)
	here := pod == nil || slices.ContainsFunc(w.Attachments, func(at Attachment) bool { return at.Pod != nil && samePod(at.Pod, pod) })
	name := w.Node
	if !here {
		name = pod.Spec.NodeName
	}
	for _, n := range w.Nodes {
		if n.Name == name && (slices.Contains(nodeAddresses(n), a) || slices.Contains(w.tunnelAddresses(n), a)) {
			return true
		}
	}
	return false
}

// tunnelOf returns the addresses of the node whose tunnel address this is, of
// its family: those it has elsewhere, and those of the tunnel. It returns none
// where it is nobody's tunnel address.
func (w *World) tunnelOf(a netip.Addr) (elsewhere, tunnels []netip.Addr) {
	otherFamily := func(b netip.Addr) bool { return b.Is4() != a.Is4() }
	for _, n := range w.Nodes {
		if tunnels := w.tunnelAddresses(n); slices.Contains(tunnels, a) {
			return slices.DeleteFunc(nodeAddresses(n), otherFamily), slices.DeleteFunc(tunnels, otherFamily)
		}
	}
	return nil, nil
}

func nodeAddresses(n *corev1.Node) []netip.Addr {
	var texts []string
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			texts = append(texts, a.Address)
		}
	}
	return readable(texts)
}

// tunnelAddresses returns the network addresses of a node's pod CIDRs: that is
// what the tunnel device has. A pod CIDR counts only if no node that comes
// first has one that overlaps it, or has its first address for its own. Who
// comes first is the node that is asked, then the oldest.
func (w *World) tunnelAddresses(of *corev1.Node) []netip.Addr {
	inOrder := slices.Clone(w.Nodes)
	slices.SortFunc(inOrder, func(a, b *corev1.Node) int {
		switch {
		case a.Name == b.Name:
			return 0
		case a.Name == w.Node:
			return -1
		case b.Name == w.Node:
			return 1
		case !a.CreationTimestamp.Equal(&b.CreationTimestamp):
			return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
		}
		return strings.Compare(a.Name, b.Name)
	})
	var counted []*net.IPNet
	for i, n := range inOrder {
		var own []netip.Addr
		for _, text := range n.Spec.PodCIDRs {
			_, cidr, err := netutils.ParseCIDRSloppy(text)
			if err != nil {
				continue
			}
			first := readable([]string{cidr.IP.String()})
			overlaps := func(other *net.IPNet) bool { return other.Contains(cidr.IP) || cidr.Contains(other.IP) }
			has := func(other *corev1.Node) bool { return slices.Contains(nodeAddresses(other), first[0]) }
			if slices.ContainsFunc(counted, overlaps) || slices.ContainsFunc(inOrder[:i], has) {
				continue
			}
			counted = append(counted, cidr)
			own = append(own, first[0])
		}
		if n.Name == of.Name {
			return own
		}
	}
	return nil
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
