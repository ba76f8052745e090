package controllers

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/policy"
)

// problemLog remembers which version of a policy was reported, so that one
// version is reported once.
type problemLog struct {
	mu       sync.Mutex
	reported map[client.ObjectKey]problemReport
	total    int
}

type problemReport struct {
	uid        types.UID
	generation int64
	problems   int
}

// first notes a version of a policy, and says whether it is a new one.
func (l *problemLog) first(np *networkingv1.NetworkPolicy, problems int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := client.ObjectKeyFromObject(np)
	now := problemReport{np.UID, np.Generation, problems}
	old := l.reported[key]
	if old == now {
		return false
	}
	if l.reported == nil {
		l.reported = map[client.ObjectKey]problemReport{}
	}
	l.reported[key] = now
	l.total += problems - old.problems
	policyProblems.Set(float64(l.total))
	return true
}

func (l *problemLog) forget(key client.ObjectKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total -= l.reported[key].problems
	delete(l.reported, key)
	policyProblems.Set(float64(l.total))
}

// reportRefused puts an Event on each policy and pod that an object concerns
// which the kernel refuses.
func (a *Agent) reportRefused(r Refusal) {
	if a.Events == nil {
		return
	}
	tell := func(namespace, name string, about client.Object, note string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if a.Reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, about) == nil {
			a.Events.Eventf(about, nil, corev1.EventTypeWarning, "RefusedByKernel", "Enforce", "%s", clampNote(note))
		}
	}
	for _, k := range r.Policies {
		tell(k.Namespace, k.Name, &networkingv1.NetworkPolicy{},
			fmt.Sprintf("node %s: the kernel refuses %s, so that less is allowed than this policy says: %v", a.Node, r.Object, r.Err))
	}
	for _, e := range r.Endpoints {
		tell(e.Pod.Namespace, e.Pod.Name, &corev1.Pod{},
			fmt.Sprintf("the kernel refuses %s, so that the pod has no network: %v", r.Object, r.Err))
	}
}

// patience is how long an object is waited for that an Event is put on; it is in the cache.
const patience = 5 * time.Second

// reportProblems logs each field of a policy that can't be read, and puts an
// Event on the policy where it is this node that tells.
func (a *Agent) reportProblems(np *networkingv1.NetworkPolicy, problems []policy.Problem, tells bool) {
	if !a.problems.first(np, len(problems)) {
		return
	}
	for _, p := range problems {
		a.Log.Info("A field of a policy can't be read", "policy", client.ObjectKeyFromObject(np), "field", p.Field, "value", p.Value, "expected", p.Expected)
		if a.Events != nil && tells {
			a.Events.Eventf(np, nil, corev1.EventTypeWarning, "UnreadableField", "Compile", "%s", p)
		}
	}
}
