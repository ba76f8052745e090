package cluster_test

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/test/randomcluster"
	"github.com/sluice-net/sluice/test/spec"

	"github.com/sluice-net/sluice/policy/cluster"
)

func podObject(name, uid, address string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "a", Name: name, UID: types.UID(uid), Labels: map[string]string{"app": name},
			CreationTimestamp: metav1.NewTime(time.Unix(1, 0)),
		},
		Spec: corev1.PodSpec{NodeName: randomcluster.OwnNode,
			Containers: []corev1.Container{
				{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: address}}},
	}
}

func nodeObject(name, address, cidr string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: []string{cidr}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}},
	}
}

// nodeWith gives a node another address.
func nodeWith(n *corev1.Node, address string) *corev1.Node {
	n.Status.Addresses = append(n.Status.Addresses,
		corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: address})
	return n
}

func attachedObject(pod *corev1.Pod, seen bool) randomcluster.Attached {
	return randomcluster.Attached{ID: "e-" + string(pod.UID), Pod: pod, Seen: seen,
		Addresses: addrs(pod.Status.PodIPs[0].IP)}
}

// fromStatus is an attachment of a pod that isn't known, by what its status says.
func fromStatus(pod *corev1.Pod) randomcluster.Attached {
	at := attachedObject(pod, false)
	at.FromStatus = true
	return at
}

// TestDifferencesFound holds what the specification and the engine once read differently, or what a
// random state showed only seldom.
func TestDifferencesFound(t *testing.T) {
	t.Parallel()
	const p, q, tunnel, out = "10.0.0.1", "10.0.0.2", "10.0.0.0", "192.0.2.99"
	own := nodeObject(randomcluster.OwnNode, "192.0.2.1", "10.0.0.0/26")
	claim := func(cidr string) *corev1.Node {
		n := nodeObject("n0", "203.0.113.3", cidr) // younger, but of an earlier name
		n.CreationTimestamp = metav1.NewTime(time.Unix(2, 0))
		return n
	}
	n2, n3 := nodeObject("n2", "198.51.100.2", "10.0.0.64/26"), claim("10.0.0.64/26")
	web, gone := podObject("p", "u1", p), podObject("q", "u0", p)
	liar := podObject("r", "u3", tunnel)
	lie := fromStatus(liar)
	lie.Seen = true
	unscheduled := podObject("p", "u1", p)
	unscheduled.Spec.NodeName = ""
	nobody := podObject("p", "u1", p)
	nobody.Status.Phase = corev1.PodSucceeded
	rules := func(spec string) []*networkingv1.NetworkPolicy {
		return []*networkingv1.NetworkPolicy{render(t, "a/np", spec)}
	}
	const denyAll = `{podSelector: {}, policyTypes: [Ingress, Egress]}`
	for _, tc := range []struct {
		name     string
		objects  randomcluster.Objects
		from, to string
		want     bool
	}{
		{"an empty protocol isn't an absent one",
			randomcluster.Objects{Pods: []*corev1.Pod{web},
				Attachments: []randomcluster.Attached{attachedObject(web, true)},
				Policies: rules(
					`{podSelector: {}, ingress: [{ports: [{protocol: "", port: 80}]}]}`)}, out,
			p, false},
		{"of two nodes with one tunnel address the older one has it",
			randomcluster.Objects{Nodes: []*corev1.Node{own, n2, n3}, Pods: []*corev1.Pod{web},
				Attachments: []randomcluster.Attached{attachedObject(web, true)},
				Policies: rules(
					`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}`)},
			"10.0.0.64", p, true},
		{"and not the younger one",
			randomcluster.Objects{Nodes: []*corev1.Node{own, n2, n3}, Pods: []*corev1.Pod{web},
				Attachments: []randomcluster.Attached{attachedObject(web, true)},
				Policies: rules(
					`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}`)},
			"10.0.0.64", p, false},
		{"a node that claims a pod's address doesn't let it in",
			randomcluster.Objects{Nodes: []*corev1.Node{own, claim("10.0.0.2/32")},
				Pods:        []*corev1.Pod{web},
				Attachments: []randomcluster.Attached{attachedObject(web, true)},
				Policies: rules(
					`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}`)},
			"10.0.0.2", p, false},
		{"nor shut it out",
			randomcluster.Objects{Nodes: []*corev1.Node{own, claim("10.0.0.2/32")},
				Pods:        []*corev1.Pod{web},
				Attachments: []randomcluster.Attached{attachedObject(web, true)},
				Policies: rules(
					`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24}}]}]}`)},
			"10.0.0.2", p, true},
		{"a node that claims another's address doesn't let it in",
			randomcluster.Objects{Nodes: []*corev1.Node{own, n2, claim("198.51.100.2/32")},
				Pods:        []*corev1.Pod{web},
				Attachments: []randomcluster.Attached{attachedObject(web, true)},
				Policies: rules(
					`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}`)},
			"198.51.100.2", p, false},
		{"nor the ranges of older nodes",
			randomcluster.Objects{Nodes: []*corev1.Node{own, n2, claim("10.0.0.0/8")},
				Pods:        []*corev1.Pod{web},
				Attachments: []randomcluster.Attached{attachedObject(web, true)},
				Policies: rules(
					`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}`)},
			"10.0.0.64", p, true},
		{"a node that says it has an older one's tunnel address takes nothing from it",
			randomcluster.Objects{Nodes: []*corev1.Node{own, n2,
				nodeWith(claim("10.0.0.128/26"), "10.0.0.64")}, Pods: []*corev1.Pod{web},
				Attachments: []randomcluster.Attached{attachedObject(web, true)},
				Policies: rules(
					`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}`)},
			"10.0.0.64", p, true},
		{"an address of this node's object is a pod's where a pod here says that it has it",
			randomcluster.Objects{Nodes: []*corev1.Node{own}, Pods: []*corev1.Pod{web, liar},
				Attachments: []randomcluster.Attached{attachedObject(web, true), lie},
				Policies:    rules(`{podSelector: {}}`)}, tunnel, p, false},
		{"also to itself",
			randomcluster.Objects{Nodes: []*corev1.Node{own}, Pods: []*corev1.Pod{web, liar},
				Attachments: []randomcluster.Attached{attachedObject(web, true), lie},
				Policies:    rules(`{podSelector: {}}`)}, tunnel, tunnel, false},
		{"and the node's where none does",
			randomcluster.Objects{Nodes: []*corev1.Node{own}, Pods: []*corev1.Pod{web, liar},
				Attachments: []randomcluster.Attached{attachedObject(web, true)},
				Policies:    rules(`{podSelector: {}}`)}, tunnel, p, true},
		{"an attachment whose pod isn't known carries nothing",
			randomcluster.Objects{
				Attachments: []randomcluster.Attached{attachedObject(web, false)}}, p, out, false},
		{"its own node reaches it all the same",
			randomcluster.Objects{Nodes: []*corev1.Node{own},
				Attachments: []randomcluster.Attached{attachedObject(web, false)}}, "192.0.2.1",
			p, true},
		{"the node of an attached pod, seen last before it was scheduled",
			randomcluster.Objects{Nodes: []*corev1.Node{own}, Pods: []*corev1.Pod{unscheduled},
				Policies:    rules(denyAll),
				Attachments: []randomcluster.Attached{attachedObject(unscheduled, true)}},
			"192.0.2.1", p, true},
		{"an attachment that waits for its pod isn't under the last owner's policy",
			randomcluster.Objects{Attachments: []randomcluster.Attached{attachedObject(gone, true),
				attachedObject(web, false)}}, p, out, false},
		{"of two attachments that wait the one that was wired counts",
			randomcluster.Objects{Attachments: []randomcluster.Attached{attachedObject(web, false),
				fromStatus(podObject("q", "u0", p))}}, p, p, true},
		{"in any order",
			randomcluster.Objects{Attachments: []randomcluster.Attached{fromStatus(gone),
				attachedObject(web, false)}}, p, p, true},
		{"a pod of an unknown namespace has no named ports",
			randomcluster.Objects{Nodes: []*corev1.Node{own},
				Pods:        []*corev1.Pod{web, podObject("q", "u2", q)},
				Attachments: []randomcluster.Attached{attachedObject(web, true)},
				Policies: rules(
					`{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`)},
			p, q, false},
		{"unless a podSelector of its namespace picks it",
			randomcluster.Objects{Nodes: []*corev1.Node{own},
				Pods:        []*corev1.Pod{web, podObject("q", "u2", q)},
				Attachments: []randomcluster.Attached{attachedObject(web, true)},
				Policies:    rules(`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: http}]}]}`)}, p, q, true},
		{"a finished pod that is still attached has its own named ports",
			randomcluster.Objects{Pods: []*corev1.Pod{nobody},
				Attachments: []randomcluster.Attached{attachedObject(nobody, true)},
				Policies:    rules(`{podSelector: {}, ingress: [{ports: [{port: http}]}]}`)}, out,
			p, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr, err := newTrial(tc.objects, cluster.Options{Node: randomcluster.OwnNode})
			if err != nil {
				t.Fatal(err)
			}
			f := spec.Flow{Source: netip.MustParseAddr(tc.from),
				Destination: netip.MustParseAddr(tc.to), Protocol: spec.TCP, Port: 80}
			if got := tr.world.Rule(f); got.Allowed != tc.want {
				t.Errorf("the specification says %+v", got)
			}
			tr.world.Flows(func(f spec.Flow) {
				if err := tr.check(f); err != nil && !t.Failed() {
					t.Error(err)
				}
			})
		})
	}
}
