package controllers

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// Reporter puts Events on the policies and pods that an Enforcer reports. Its methods may be called
// from several goroutines.
type Reporter struct {
	Node   string // this node's name
	Reader client.Reader
	Events events.EventRecorder
	// ClusterPolicies has the ClusterNetworkPolicies, which aren't read by Reader.
	ClusterPolicies *ClusterPolicies
}

// patience is how long to wait for an object to put an Event on; it is in the cache.
const patience = 5 * time.Second

// Refused puts an Event on each policy and pod that a refused object concerns.
func (r *Reporter) Refused(refusal enforcer.Refusal) {
	for _, k := range refusal.Policies {
		r.putOn(k, "RefusedByKernel", fmt.Sprintf(
			"node %s: the kernel refuses %s, so that less is allowed than this policy says: %v",
			r.Node, refusal.Object, refusal.Err))
	}
	for _, e := range refusal.Endpoints {
		r.put(podObject(e.Pod), "RefusedByKernel",
			fmt.Sprintf("the kernel refuses %s, so that the pod has no network: %v", refusal.Object,
				refusal.Err))
	}
}

// Shed puts an Event on each policy that costs too much. All nodes that run pods of its namespace
// may find the same, so only few of them report it.
func (r *Reporter) Shed(s enforcer.Shed) {
	if !notify.IsReporterAmong(r.Node, s.Nodes, s.Policies[0].Namespace, shedReporters) {
		return
	}
	for _, k := range s.Policies[:min(len(s.Policies), notify.MostWaiting)] {
		r.putOn(k, "TooCostly", "node "+r.Node+": "+s.Reason)
	}
}

// shedReporters is how many of the nodes that run pods of a namespace put an Event on its policies.
// Each node has its own bound of costs, so one reporter may not be enough.
const shedReporters = 3

// putOn puts an Event on a policy, if that is there.
func (r *Reporter) putOn(k policy.Key, reason, note string) {
	if k.Namespace == "" {
		if about := r.ClusterPolicies.object(k.Name); about != nil {
			r.put(about, reason, note)
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	about := &networkingv1.NetworkPolicy{}
	if r.Reader.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: k.Name}, about) == nil {
		r.put(about, reason, note)
	}
}

func (r *Reporter) put(about client.Object, reason, note string) {
	r.Events.Eventf(about, nil, corev1.EventTypeWarning, reason, "Enforce", "%s",
		notify.Clamp(note))
}

// podObject is as much of a pod as an Event needs.
func podObject(p selector.Pod) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID)}}
}
