package randomcluster

import (
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	networkpolicyapi "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/sluice-net/sluice/policy"
)

// Objects is a state of a cluster as an API server and the node OwnNode know it.
type Objects struct {
	Namespaces []*corev1.Namespace
	Pods       []*corev1.Pod
	Nodes      []*corev1.Node
	Policies   []*networkingv1.NetworkPolicy
	// ClusterPolicies may be none, whatever there is else.
	ClusterPolicies []*networkpolicyapi.ClusterNetworkPolicy
	Attachments     []Attached
	// PodNetworks are the ranges of all pods; nil if they aren't known.
	PodNetworks []netip.Prefix
}

// OwnNode is the node that has the attachments.
const OwnNode = "n1"

// Attached is a pod that was wired on OwnNode.
type Attached struct {
	ID string
	// Pod is the object as it was last seen; it may not be in Objects.Pods any more. Where Seen is
	// false it never was, and only its identity counts.
	Pod       *corev1.Pod
	Seen      bool
	Addresses []netip.Addr
	// FromStatus: only the pod's status has the addresses.
	FromStatus bool
}

// podTexts are the addresses of pods: of the ranges of n1, n2 and no node, a node's, and a
// tunnel's.
var podTexts = [][]string{
	{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.65", "10.0.0.66", "10.0.0.200", "192.0.2.12",
		"10.0.0.64"},
	{"fd00::1", "fd00::2", "fd00::3", "fd00:0:0:1::1"},
}

// allOfThem is the range of all pods.
const allOfThem = "10.0.0.0/24"

// objectBlocks are ipBlocks round those addresses and the nodes', some of them spelled as an API
// server lets in or has let in once.
var objectBlocks = []string{
	"0.0.0.0/0", "10.0.0.0/30", smallBlock, "10.0.0.2/32", "10.0.0.64/26", "10.0.0.64/32",
	"10.0.0.0/32", "10.0.0.0/25", "192.0.2.0/28", "192.0.2.12/32", "255.255.255.254/31",
	"::/0", "fd00::2/127", "fd00::/64", "fd00:0:0:1::/128", "2001:db8::/32", "2001:db8::12/128",
	"10.0.0.3/30", "010.000.0.2/31", "::ffff:10.0.0.0/126", "::ffff:0:0/95", "fd00::3/126",
	"10.0.0.0/33", "10.0.0.1", "",
}

// ObjectsGen draws a state; policyOnly says that another plugin gives pods their addresses. No two
// pods are of the same age: which of two of the same age has an address isn't specified.
func ObjectsGen(policyOnly bool) *rapid.Generator[Objects] {
	return rapid.Custom(func(t *rapid.T) Objects {
		var out Objects
		for _, name := range []string{"a", "b"} {
			if rapid.IntRange(0, 7).Draw(t, "no namespace") > 0 {
				out.Namespaces = append(out.Namespaces,
					&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name,
						Labels: labelsGen().Draw(t, "labels")}})
			}
		}
		out.Nodes = nodes(t)
		if rapid.Bool().Draw(t, "networks known") {
			out.PodNetworks = []netip.Prefix{netip.MustParsePrefix(allOfThem),
				netip.MustParsePrefix("fd00::/48")}
		}
		ages := rapid.Permutation([]int{0, 1, 2, 3, 4, 5}).Draw(t, "ages")
		for i := range rapid.IntRange(2, len(ages)).Draw(t, "pods") {
			name := []string{"p", "q", "r"}[i%3]
			uid := anyUID(t, fmt.Sprintf("u%d", i))
			pod := object(t, []string{"a", "b"}[i/3], name, uid, ages[i])
			out.place(t, pod, policyOnly)
		}
		for i := range rapid.IntRange(1, 3).Draw(t, "policies") {
			np := policyGen(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"),
				fmt.Sprintf("n%d", i)).Draw(t, "policy")
			redrawBlocks(t, np)
			if rapid.IntRange(0, 3).Draw(t, "spoil") == 0 {
				spoil(t, np)
			}
			out.Policies = append(out.Policies, np)
		}
		for i := range max(0, rapid.IntRange(-2, 3).Draw(t, "cluster policies")) {
			out.ClusterPolicies = append(out.ClusterPolicies,
				clusterPolicyGen(fmt.Sprintf("c%d", i)).Draw(t, "cluster policy"))
		}
		return out
	})
}

// nodes draws nodes. One may claim what isn't its own: another's range or tunnel address, all of
// them, a pod's address or a node's.
func nodes(t *rapid.T) []*corev1.Node {
	var out []*corev1.Node
	for i, cidrs := range [][]string{{"10.0.0.0/26", "fd00::/64"},
		{"10.0.0.64/26", "fd00:0:0:1::/64"}, {"10.0.0.128/26"}} {
		name := fmt.Sprintf("n%d", i+1)
		if i > 0 && rapid.IntRange(0, 3).Draw(t, "no node") == 0 {
			continue
		}
		if i == 2 && rapid.IntRange(0, 3).Draw(t, "range taken over") == 0 {
			cidrs = []string{rapid.SampledFrom([]string{"10.0.0.64/26", allOfThem, smallBlock,
				"192.0.2.11/32", "192.0.2.12/32"}).Draw(t, "claim")}
		}
		created := metav1.NewTime(time.Unix(rapid.Int64Range(1, 3).Draw(t, "node created"), 0))
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: created},
			Spec: corev1.NodeSpec{PodCIDRs: cidrs}}
		for _, a := range []string{fmt.Sprintf("192.0.2.1%d", i+1),
			fmt.Sprintf("2001:db8::1%d", i+1)} {
			if rapid.IntRange(0, 3).Draw(t, "no address") > 0 {
				n.Status.Addresses = append(n.Status.Addresses,
					corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
			}
		}
		if rapid.IntRange(0, 5).Draw(t, "hostile") == 0 {
			claim := rapid.SampledFrom([]string{"192.0.2.11", "192.0.2.99", "10.0.0.2",
				"2001:db8::12", "127.0.0.1"}).Draw(t, "claimed address")
			n.Status.Addresses = append([]corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: claim}}, n.Status.Addresses...)
		}
		if rapid.IntRange(0, 5).Draw(t, "annotated") == 0 {
			underlay := rapid.SampledFrom([]string{fmt.Sprintf("192.0.2.3%d", i+1), "2001:db8::12",
				"10.0.0.2", "nonsense"}).Draw(t, "annotation")
			n.Annotations = map[string]string{policy.UnderlayAnnotation: underlay}
		}
		if rapid.IntRange(0, 3).Draw(t, "external") == 0 {
			external := rapid.SampledFrom([]string{fmt.Sprintf("192.0.2.2%d", i+1), "10.0.0.64",
				"10.0.0.2"}).Draw(t, "external address")
			n.Status.Addresses = append(n.Status.Addresses,
				corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: external})
		}
		out = append(out, n)
	}
	return out
}

// object draws a pod.
func object(t *rapid.T, namespace, name, uid string, age int) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: types.UID(uid),
		Labels:            labelsGen().Draw(t, "labels"),
		CreationTimestamp: metav1.NewTime(time.Unix(int64(age), 0)),
	}}
	pod.Spec.HostNetwork = rapid.IntRange(0, 9).Draw(t, "host network") == 0
	pod.Spec.NodeName = rapid.SampledFrom([]string{OwnNode, "n2", ""}).Draw(t, "node")
	pod.Status.Phase = rapid.SampledFrom([]corev1.PodPhase{corev1.PodRunning, corev1.PodRunning,
		corev1.PodPending, corev1.PodSucceeded}).Draw(t, "phase")
	if rapid.IntRange(0, 4).Draw(t, "terminating") == 0 {
		pod.DeletionTimestamp = &metav1.Time{Time: time.Unix(100, 0)}
	}
	for _, family := range podTexts {
		if rapid.IntRange(0, 4).Draw(t, "has address") > 0 {
			pod.Status.PodIPs = append(pod.Status.PodIPs,
				corev1.PodIP{IP: rapid.SampledFrom(family).Draw(t, "address")})
		}
	}
	always := corev1.ContainerRestartPolicyAlways
	for i := range rapid.IntRange(0, 2).Draw(t, "containers") {
		c := corev1.Container{Ports: rapid.SliceOfN(rapid.Custom(containerPort), 0, 2).
			Draw(t, "ports")}
		switch rapid.IntRange(0, 3).Draw(t, fmt.Sprintf("kind %d", i)) {
		case 0:
			c.RestartPolicy = &always // a sidecar
			fallthrough
		case 1:
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
		default:
			pod.Spec.Containers = append(pod.Spec.Containers, c)
		}
	}
	return pod
}

func containerPort(t *rapid.T) corev1.ContainerPort {
	return corev1.ContainerPort{
		Name: rapid.SampledFrom([]string{namedPort, "dns", ""}).Draw(t, "name"),
		Protocol: rapid.SampledFrom([]corev1.Protocol{"", corev1.ProtocolTCP,
			corev1.ProtocolUDP, corev1.ProtocolSCTP}).Draw(t, "protocol"),
		ContainerPort: int32(rapid.SampledFrom(Ports[1:]).Draw(t, "number")),
	}
}

// place adds a pod to the state: as an object, as an attachment, or both. The attachment's
// addresses needn't be those of the status.
func (o *Objects) place(t *rapid.T, pod *corev1.Pod, policyOnly bool) {
	known := true
	if pod.Spec.NodeName != "n2" && !pod.Spec.HostNetwork &&
		rapid.IntRange(0, 2).Draw(t, "attached") > 0 {
		at := Attached{ID: "e-" + string(pod.UID), Pod: pod,
			Seen: rapid.IntRange(0, 7).Draw(t, "never seen") > 0}
		for _, ip := range pod.Status.PodIPs {
			at.Addresses = append(at.Addresses, netip.MustParseAddr(ip.IP))
		}
		if len(at.Addresses) == 0 || rapid.IntRange(0, 4).Draw(t, "other address") == 0 {
			at.Addresses = []netip.Addr{
				netip.MustParseAddr(rapid.SampledFrom(podTexts[0]).Draw(t, "address"))}
		}
		at.FromStatus = policyOnly && rapid.Bool().Draw(t, "from its status")
		o.Attachments = append(o.Attachments, at)
		known = at.Seen && rapid.IntRange(0, 5).Draw(t, "object gone") > 0
	}
	switch {
	case known:
		o.Pods = append(o.Pods, pod)
	case rapid.Bool().Draw(t, "successor"): // of the same name, as in a StatefulSet
		age := int(pod.CreationTimestamp.Unix()) + 10
		uid := anyUID(t, string(pod.UID)+"-next")
		o.Pods = append(o.Pods, object(t, pod.Namespace, pod.Name, uid, age))
	}
}
