package controllers

import (
	"errors"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

// TestRefusedIsReported: an Event on each policy and each pod that an object which the kernel
// refuses concerns; none on a policy that is gone.
func TestRefusedIsReported(t *testing.T) {
	t.Parallel()
	recorder := events.NewFakeRecorder(10)
	objects := clientfake.NewClientBuilder().WithObjects(
		&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "db"}},
	).Build()
	r := &Reporter{Node: "n1", Reader: objects, Events: recorder}
	pod := func(name string) *cluster.EndpointPolicy {
		return &cluster.EndpointPolicy{
			Endpoint: policy.Endpoint{Pod: selector.Pod{Namespace: "dev", Name: name}}}
	}
	r.Refused(enforcer.Refusal{
		Object: nft.Object{Chain: "ingress/1"}, Err: errors.New("no such file"),
		Policies:  []policy.Key{{Namespace: "dev", Name: "db"}, {Namespace: "dev", Name: "gone"}},
		Endpoints: []*cluster.EndpointPolicy{pod("db-0")},
	})
	for _, want := range []string{
		"Warning RefusedByKernel node n1: the kernel refuses chain ingress/1, so that less is " +
			"allowed than this policy says: no such file",
		"Warning RefusedByKernel the kernel refuses chain ingress/1, so that the pod has no " +
			"network: no such file",
	} {
		select {
		case got := <-recorder.Events:
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		default:
			t.Fatalf("no Event, want %q", want)
		}
	}
	if len(recorder.Events) > 0 {
		t.Errorf("one more: %s", <-recorder.Events)
	}
}

// TestTooCostlyIsReported: by a few of the nodes that run pods of the namespace, on each policy
// that is there.
func TestTooCostlyIsReported(t *testing.T) {
	t.Parallel()
	nodes := []string{"n1", "n2", "n3", "n4", "n5", "n6", "n7"}
	reporters := 0
	for _, node := range nodes {
		recorder := events.NewFakeRecorder(10)
		objects := clientfake.NewClientBuilder().
			WithObjects(&networkingv1.NetworkPolicy{
				ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "db"}}).Build()
		r := &Reporter{Node: node, Reader: objects, Events: recorder}
		r.Shed(enforcer.Shed{Policies: []policy.Key{{Namespace: "dev", Name: "db"},
			{Namespace: "dev", Name: "gone"}}, Reason: "too many rules", Nodes: nodes})
		switch len(recorder.Events) {
		case 0:
		case 1:
			reporters++
			got, want := <-recorder.Events, "Warning TooCostly node "+node+": too many rules"
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		default:
			t.Errorf("%s puts %d Events on one policy", node, len(recorder.Events))
		}
	}
	if reporters != shedReporters {
		t.Errorf("%d nodes report, want %d", reporters, shedReporters)
	}
}
