package spec

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	netutils "k8s.io/utils/net"
)

// subject returns the pod whose policies govern an address, and whether there is one. It is nil for
// an attachment whose pod isn't known.
//
// On the node that looks, an attachment decides, also for a pod that has finished or whose object
// is gone: it keeps its last policy until it is detached.
func (w *World) subject(a netip.Addr) (pod *corev1.Pod, governed bool) {
	if at := w.attachment(a); at != nil {
		return at.Pod, true
	}
	pod = w.peer(a)
	return pod, pod != nil
}

// attachment returns the attachment that has an address, or nil. Two can have one where another
// plugin says which pods there are: then a pod that others may meet comes first, above all one that
// was wired, before one that is yet to be known, that before one at its end, and of two alike the
// one that was wired.
func (w *World) attachment(a netip.Addr) *Attachment {
	var best *Attachment
	for i := range w.Attachments {
		at := &w.Attachments[i]
		if slices.Contains(at.Addresses, a) && (best == nil || w.comesBefore(at, best)) {
			best = at
		}
	}
	return best
}

func (w *World) comesBefore(a, b *Attachment) bool {
	aExists, bExists := w.exists(a.Pod), w.exists(b.Pod)
	switch aWired, bWired := aExists && !a.FromStatus, bExists && !b.FromStatus; {
	case aWired != bWired:
		return aWired
	case aExists != bExists:
		return aExists
	case (a.Pod == nil) != (b.Pod == nil):
		return a.Pod == nil
	case a.FromStatus != b.FromStatus:
		return b.FromStatus
	case a.Pod == nil:
		return false
	}
	return better(a.Pod, b.Pod)
}

// exists: the pod is there, and not at its end.
func (w *World) exists(pod *corev1.Pod) bool {
	return pod != nil && alive(pod) &&
		slices.ContainsFunc(w.Pods, func(p *corev1.Pod) bool { return samePod(p, pod) })
}

// peer returns the pod that selectors mean by an address, or nil. A pod that has finished, or whose
// object is gone, doesn't count.
func (w *World) peer(a netip.Addr) *corev1.Pod {
	if at := w.attachment(a); at != nil && !at.FromStatus {
		if w.exists(at.Pod) {
			return at.Pod
		}
		return nil
	}
	var claim []*corev1.Pod
	for _, pod := range w.Pods {
		if alive(pod) && slices.Contains(podAddresses(pod), a) && w.canHave(pod, a) {
			claim = append(claim, pod)
		}
	}
	return holder(claim)
}

// holder: "an address seen on two live pods: … of the node of the oldest that isn't ending, the
// newest that isn't."
func holder(claim []*corev1.Pod) *corev1.Pod {
	stays := func(p *corev1.Pod) bool { return p.DeletionTimestamp == nil }
	if slices.ContainsFunc(claim, stays) {
		claim = slices.DeleteFunc(claim, func(p *corev1.Pod) bool { return !stays(p) })
	}
	var oldest, newest *corev1.Pod
	for _, p := range claim {
		if oldest == nil || p.CreationTimestamp.Before(&oldest.CreationTimestamp) {
			oldest = p
		}
	}
	for _, p := range claim {
		if p.Spec.NodeName == oldest.Spec.NodeName &&
			(newest == nil || newest.CreationTimestamp.Before(&p.CreationTimestamp)) {
			newest = p
		}
	}
	return newest
}

// canHave: "a pod's address counts only within the pod ranges that are believed of its node." Where
// another plugin gives it, it may be outside of all ranges, but not be a node's.
func (w *World) canHave(pod *corev1.Pod, a netip.Addr) bool {
	known := slices.ContainsFunc(w.Nodes, func(n *corev1.Node) bool {
		return n.Name == pod.Spec.NodeName
	})
	if !known {
		return false
	}
	for _, r := range w.ranges() {
		if r.first == a {
			return false // a tunnel address
		}
		if r.cidr.Contains(a.AsSlice()) {
			return r.node.Name == pod.Spec.NodeName
		}
	}
	return w.PolicyOnly && !slices.ContainsFunc(w.Nodes, func(n *corev1.Node) bool {
		return slices.Contains(nodeAddresses(n), a)
	})
}

// better: of two pods that were wired with one address, the newest that isn't ending.
func better(a, b *corev1.Pod) bool {
	if aEnds, bEnds := a.DeletionTimestamp != nil, b.DeletionTimestamp != nil; aEnds != bEnds {
		return bEnds
	}
	return a.CreationTimestamp.After(b.CreationTimestamp.Time)
}

// alive: a pod of the pod network that hasn't come to its end.
func alive(pod *corev1.Pod) bool {
	return !pod.Spec.HostNetwork && pod.Status.Phase != corev1.PodSucceeded &&
		pod.Status.Phase != corev1.PodFailed
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

// has says whether the pod that is governed at an address has another one too: a pod reaches
// itself. It was wired with it, or selectors mean the pod by it. Of a pod that isn't known (nil),
// only the same address is known.
func (w *World) has(pod *corev1.Pod, at, other netip.Addr) bool {
	if pod == nil {
		return at == other && !w.attachment(at).FromStatus
	}
	wired := slices.ContainsFunc(w.Attachments, func(a Attachment) bool {
		return !a.FromStatus && a.Pod != nil && samePod(a.Pod, pod) &&
			slices.Contains(a.Addresses, other)
	})
	if wired {
		owner, _ := w.subject(other)
		return owner != nil && samePod(owner, pod)
	}
	peer := w.peer(other)
	return peer != nil && samePod(peer, pod)
}

// isOwnNode says whether an address is one of the node that the pod with another address runs on.
// What is attached here runs here, even if its object says otherwise.
func (w *World) isOwnNode(a, of netip.Addr) bool {
	pod, _ := w.subject(of)
	here := pod == nil || slices.ContainsFunc(w.Attachments, func(at Attachment) bool {
		return at.Pod != nil && samePod(at.Pod, pod)
	})
	name := w.Node
	if !here {
		name = pod.Spec.NodeName
	}
	if name == w.Node && w.attachment(a) != nil {
		return false // packets from there are a pod's, even if the node's object says otherwise
	}
	return slices.Contains(w.AddressesOf(name), a)
}

// AddressesOf returns the addresses that a node is believed to have: those of the underlay and
// those of the tunnel.
func (w *World) AddressesOf(name string) []netip.Addr {
	if out, known := w.addressesOf[name]; known {
		return out
	}
	var out []netip.Addr
	for _, n := range w.Nodes {
		if n.Name == name {
			out = append(w.underlayAddresses(n), w.tunnelAddresses(n)...)
		}
	}
	if w.addressesOf == nil {
		w.addressesOf = map[string][]netip.Addr{}
	}
	w.addressesOf[name] = out
	return out
}

// tunnelOf returns the node whose tunnel address this is, or nil.
func (w *World) tunnelOf(a netip.Addr) *corev1.Node {
	for _, r := range w.ranges() {
		if r.first == a {
			return r.node
		}
	}
	return nil
}

// tunnelAddresses returns the network addresses of a node's pod CIDRs: that is what the tunnel
// device has.
func (w *World) tunnelAddresses(of *corev1.Node) (out []netip.Addr) {
	for _, r := range w.ranges() {
		if r.node.Name == of.Name {
			out = append(out, r.first)
		}
	}
	return out
}

// nodeAddresses returns what a node says of itself.
func nodeAddresses(n *corev1.Node) []netip.Addr {
	return append(annotated(n), append(addressesOfType(n, corev1.NodeInternalIP),
		addressesOfType(n, corev1.NodeExternalIP)...)...)
}

func annotated(n *corev1.Node) []netip.Addr {
	return readable([]string{n.Annotations["sluice.network/underlay-ip"]})
}

func addressesOfType(n *corev1.Node, kind corev1.NodeAddressType) []netip.Addr {
	var texts []string
	for _, a := range n.Status.Addresses {
		if a.Type == kind {
			texts = append(texts, a.Address)
		}
	}
	return readable(texts)
}

// underlayAddresses returns the address of a node's annotation, and the first InternalIP of each
// other family. It counts only if it is in no pod range, and no node that comes first has it.
func (w *World) underlayAddresses(of *corev1.Node) []netip.Addr {
	counted := map[netip.Addr]string{}
	for _, n := range w.inOrder() {
		family := map[bool]bool{}
		for _, a := range append(annotated(n), addressesOfType(n, corev1.NodeInternalIP)...) {
			isPods := slices.ContainsFunc(w.ranges(), func(r podRange) bool {
				return r.cidr.Contains(a.AsSlice())
			})
			_, taken := counted[a]
			if !family[a.Is4()] && !taken && !isPods && a.IsGlobalUnicast() {
				counted[a] = n.Name
			}
			family[a.Is4()] = true
		}
	}
	var out []netip.Addr
	for a, name := range counted {
		if name == of.Name {
			out = append(out, a)
		}
	}
	return out
}

// podRange is a pod CIDR that counts.
type podRange struct {
	node  *corev1.Node
	cidr  *net.IPNet
	first netip.Addr
}

// ranges returns the pod CIDRs that count: within the pod network, if no node that comes first has
// one that overlaps, or has its first address for its own.
func (w *World) ranges() []podRange {
	var out []podRange
	for i, n := range w.inOrder() {
		for _, text := range n.Spec.PodCIDRs {
			_, cidr, err := netutils.ParseCIDRSloppy(text)
			if err != nil {
				continue
			}
			first := readable([]string{cidr.IP.String()})[0]
			ones, _ := cidr.Mask.Size()
			inside := w.PodNetworks == nil ||
				slices.ContainsFunc(w.PodNetworks, func(p netip.Prefix) bool {
					return p.Contains(first) && p.Bits() <= ones
				})
			overlaps := func(r podRange) bool {
				return r.cidr.Contains(cidr.IP) || cidr.Contains(r.cidr.IP)
			}
			has := func(other *corev1.Node) bool {
				return slices.Contains(nodeAddresses(other), first)
			}
			if inside && !slices.ContainsFunc(out, overlaps) &&
				!slices.ContainsFunc(w.inOrder()[:i], has) {
				out = append(out, podRange{n, cidr, first})
			}
		}
	}
	return out
}

// inOrder returns the nodes as they come first: the one that is asked, then by age.
func (w *World) inOrder() []*corev1.Node {
	out := slices.Clone(w.Nodes)
	slices.SortFunc(out, func(a, b *corev1.Node) int {
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
