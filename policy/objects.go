package policy

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/selector"
)

// Pod is what policy needs of a pod, wherever it runs.
type Pod struct {
	ID     selector.Pod
	Labels selector.LabelSet
	// Addresses are what its status says, of either family, never IPv4-mapped.
	Addresses []netip.Addr
	// Node is the name of the pod's node, empty while it is not scheduled.
	Node string
	// HostNetwork pods are their node: never selected, never a selector peer.
	HostNetwork bool
	// Terminating pods are still pods; Finished ones (Succeeded, Failed) are nobody's peer.
	Terminating, Finished bool
	// Created decides between pods that claim one address.
	Created time.Time
	// Ports are the named ports of containers and sidecars.
	Ports PodPorts
}

// Key is the pod's name, which another pod can have after it.
func (p *Pod) Key() Key { return Key{p.ID.Namespace, p.ID.Name} }

// Endpoint is a pod's attachment to the network of this node.
type Endpoint struct {
	// ID tells attachments apart; a pod can have an old and a new one.
	ID  string
	Pod selector.Pod
	// Interface is the node's end of the pod's veth, empty where another CNI wired the pod and only
	// the address is known.
	Interface string
	Addresses []netip.Addr
	// FromStatus says that nobody but the pod's status knows of the Addresses. Its policies govern
	// them; whether others meet it there is another matter.
	FromStatus bool
}

// Node is what policy needs of a node.
type Node struct {
	Name string
	// Created decides between nodes that claim the same: the older one has it. It may be zero.
	Created time.Time
	// Addresses are those of status.addresses.
	Addresses []netip.Addr
	// Underlay are those from which other nodes get what it sends outside of the tunnel, at most
	// one of each family: that of the annotation, or the first InternalIP.
	Underlay []netip.Addr
	// PodCIDRs are the masked ranges of the node's pods.
	PodCIDRs []netip.Prefix
}

// TunnelAddresses are the node's source addresses inside the pod network: the network addresses of
// its pod CIDRs.
func (n Node) TunnelAddresses() []netip.Addr {
	var out []netip.Addr
	for _, cidr := range n.PodCIDRs {
		out = append(out, cidr.Addr())
	}
	return out
}

// mirrorAnnotation holds the UID by which the container runtime knows a static pod; its mirror
// object has another one.
const mirrorAnnotation = corev1.MirrorPodAnnotationKey

// PodFrom reads a Pod object. Addresses, ports and protocols that can't be read, and addresses that
// can't be a pod's, are left out.
func PodFrom(in *corev1.Pod) Pod {
	uid := string(in.UID)
	if static := in.Annotations[mirrorAnnotation]; static != "" {
		uid = static
	}
	return Pod{
		ID:          selector.Pod{Namespace: in.Namespace, Name: in.Name, UID: uid},
		Labels:      selector.LabelSetOf(in.Labels),
		Addresses:   podAddresses(in.Status),
		Node:        in.Spec.NodeName,
		HostNetwork: in.Spec.HostNetwork,
		Terminating: in.DeletionTimestamp != nil,
		Finished:    in.Status.Phase == corev1.PodSucceeded || in.Status.Phase == corev1.PodFailed,
		Created:     in.CreationTimestamp.Time,
		Ports:       podPorts(in.Spec),
	}
}

func podAddresses(s corev1.PodStatus) []netip.Addr {
	var out []netip.Addr
	add := func(text string) {
		a, err := netip.ParseAddr(text)
		// Unspecified, loopback, link-local and multicast addresses are nobody's alone.
		if err == nil && a.Zone() == "" && a.Unmap().IsGlobalUnicast() &&
			!slices.Contains(out, a.Unmap()) {
			out = append(out, a.Unmap())
		}
	}
	add(s.PodIP)
	for _, ip := range s.PodIPs {
		add(ip.IP)
	}
	return out
}

// podPorts lists the named ports of containers and of sidecars, which are init containers that are
// always restarted (KEP-753). Other init containers serve nobody once the pod runs.
func podPorts(s corev1.PodSpec) PodPorts {
	var out []PodPort
	add := func(ports []corev1.ContainerPort) {
		for _, p := range ports {
			protocol, known := protocolNumber(p.Protocol)
			if !known || p.Name == "" || p.ContainerPort < 1 || p.ContainerPort > maxPort {
				continue
			}
			out = append(out, PodPort{NamedPort{protocol, p.Name}, uint16(p.ContainerPort)})
		}
	}
	for i := range s.Containers {
		add(s.Containers[i].Ports)
	}
	for i := range s.InitContainers {
		r := s.InitContainers[i].RestartPolicy
		if r != nil && *r == corev1.ContainerRestartPolicyAlways {
			add(s.InitContainers[i].Ports)
		}
	}
	return PodPortsOf(out...)
}

// UnderlayAnnotation of a Node names the address that its tunnel uses, where that isn't its first
// InternalIP of the underlay's family.
const UnderlayAnnotation = "sluice.network/underlay-ip"

// NodeFrom reads a Node object, and leaves out what can't be read.
func NodeFrom(in *corev1.Node) Node {
	out := Node{Name: in.Name, Created: in.CreationTimestamp.Time}
	if a, err := netip.ParseAddr(in.Annotations[UnderlayAnnotation]); err == nil && a.Zone() == "" {
		out.Underlay = append(out.Underlay, a.Unmap())
	}
	for _, a := range in.Status.Addresses {
		if a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
			continue
		}
		if addr, err := netip.ParseAddr(a.Address); err == nil && addr.Zone() == "" {
			addr = addr.Unmap()
			out.Addresses = append(out.Addresses, addr)
			sameFamily := func(b netip.Addr) bool { return b.Is4() == addr.Is4() }
			if a.Type == corev1.NodeInternalIP && !slices.ContainsFunc(out.Underlay, sameFamily) {
				out.Underlay = append(out.Underlay, addr)
			}
		}
	}
	cidrs := in.Spec.PodCIDRs
	if len(cidrs) == 0 && in.Spec.PodCIDR != "" {
		cidrs = []string{in.Spec.PodCIDR}
	}
	for _, c := range cidrs {
		if prefix, err := selector.ParseCIDR(c); err == nil {
			out.PodCIDRs = append(out.PodCIDRs, prefix.Masked())
		}
	}
	return out
}
