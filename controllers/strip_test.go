package controllers

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
)

// fullPod is a pod with every field that policy reads, and some that it doesn't.
func fullPod() *corev1.Pod {
	always := corev1.ContainerRestartPolicyAlways
	now := metav1.Now()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "dev", Name: "web", UID: "u1", Labels: map[string]string{"app": "web"},
			CreationTimestamp: now, DeletionTimestamp: &now,
			Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "static",
				"other": "dropped"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1", HostNetwork: true, ServiceAccountName: "dropped",
			Containers: []corev1.Container{
				{Name: "a", Image: "dropped",
					Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80},
						{ContainerPort: 81}}},
				{Name: "b", Image: "dropped"},
			},
			InitContainers: []corev1.Container{
				{Name: "side", RestartPolicy: &always,
					Ports: []corev1.ContainerPort{
						{Name: "side", ContainerPort: 90, Protocol: corev1.ProtocolUDP}}},
				{Name: "init", Ports: []corev1.ContainerPort{{Name: "init", ContainerPort: 91}}},
			},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodFailed, PodIP: "10.0.0.1",
			PodIPs:            []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "dropped"}},
		},
	}
}

var comparers = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestStripKeepsWhatPolicyReads(t *testing.T) {
	t.Parallel()
	pods := append(cases.Pods(), fullPod())
	for _, in := range pods {
		out, err := strip(in)
		if err != nil {
			t.Fatal(err)
		}
		pod, ok := out.(*corev1.Pod)
		if !ok {
			t.Fatalf("a pod became a %T", out)
		}
		want, got := policy.PodFrom(in), policy.PodFrom(pod)
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(policy.Pod{}.Created),
			cmpopts.EquateComparable(want.ID), comparers); diff != "" {
			t.Error(diff)
		}
		if pod.ManagedFields != nil || pod.Spec.ServiceAccountName != "" ||
			pod.Status.ContainerStatuses != nil || pod.Annotations["other"] != "" {
			t.Errorf("kept more than is used: %+v", pod)
		}
	}
	node, _ := strip(cases.Node())
	if diff := cmp.Diff(policy.NodeFrom(cases.Node()), policy.NodeFrom(node.(*corev1.Node)),
		comparers); diff != "" {
		t.Error(diff)
	}
	np, err := cases.RenderPolicy("dev/p", `{podSelector: {}, ingress: [{ports: [{port: 80}]}]}`,
		cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	stripped, _ := strip(np)
	if diff := cmp.Diff(policy.Parse(np), policy.Parse(stripped.(*networkingv1.NetworkPolicy)),
		comparers); diff != "" {
		t.Error(diff)
	}
}
