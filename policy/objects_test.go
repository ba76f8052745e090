package policy_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/selector"

	"github.com/sluice-net/sluice/policy"
)

func TestPodFrom(t *testing.T) {
	t.Parallel()
	always := corev1.ContainerRestartPolicyAlways
	now := metav1.Now()
	got := policy.PodFrom(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "dev", Name: "web", UID: "mirror", DeletionTimestamp: &now,
			Labels:      map[string]string{"app": "web"},
			Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "static"},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1",
			Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
				{Name: "http", ContainerPort: 80}, {ContainerPort: 81},
				{Name: "bad", ContainerPort: 70000},
				{Name: "odd", ContainerPort: 1, Protocol: "DCCP"},
			}}},
			InitContainers: []corev1.Container{
				{RestartPolicy: &always,
					Ports: []corev1.ContainerPort{
						{Name: "side", ContainerPort: 90, Protocol: corev1.ProtocolUDP}}},
				{Ports: []corev1.ContainerPort{{Name: "init", ContainerPort: 91}}},
			},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodFailed, PodIP: "10.0.0.1",
			PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}, {IP: "::ffff:10.0.0.2"},
				{IP: "fe80::1%eth0"}, {IP: "nonsense"}},
		},
	})
	want := policy.Pod{
		ID:        selector.Pod{Namespace: "dev", Name: "web", UID: "static"},
		Labels:    selector.LabelSetOf(map[string]string{"app": "web"}),
		Addresses: addrs("10.0.0.1", "fd00::1", "10.0.0.2"),
		Node:      "n1", Terminating: true, Finished: true,
		Ports: policy.PodPortsOf(policy.PodPort{policy.NamedPort{policy.ProtocolTCP, "http"}, 80},
			policy.PodPort{policy.NamedPort{policy.ProtocolUDP, "side"}, 90}),
	}
	diff := cmp.Diff(want, got,
		cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, selector.LabelSet{},
			policy.PodPorts{}))
	if diff != "" {
		t.Error(diff)
	}
}

func TestNodeFrom(t *testing.T) {
	t.Parallel()
	got := policy.NodeFrom(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1",
			Annotations: map[string]string{policy.UnderlayAnnotation: "192.0.2.9"}},
		Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24", "fd00::/64", "nonsense"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: "n1"},
			{Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
			{Type: corev1.NodeExternalIP, Address: "2001:db8::1"},
			{Type: corev1.NodeInternalIP, Address: "bad"},
			{Type: corev1.NodeInternalIP, Address: "192.0.2.2"},
			{Type: corev1.NodeInternalIP, Address: "2001:db8::2"},
		}},
	})
	want := policy.Node{
		Name: "n1", Addresses: addrs("192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"),
		Underlay: addrs("192.0.2.9", "2001:db8::2"),
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"),
			netip.MustParsePrefix("fd00::/64")},
	}
	diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}))
	if diff != "" {
		t.Error(diff)
	}
}

func addrs(in ...string) (out []netip.Addr) {
	for _, s := range in {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}
