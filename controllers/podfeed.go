package controllers

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// podsOf lists and watches the pods of the cluster, by the manager's connections.
func podsOf(mgr ctrl.Manager) (cache.ListerWatcher, error) {
	return WatchPods(mgr.GetConfig(), mgr.GetHTTPClient(), mgr.GetScheme())
}

// WatchPods lists and watches the pods of the cluster, as an agent does: all of each pod, in the
// format that is the smallest of those that the API server has. The scheme has to know pods.
func WatchPods(config *rest.Config, connections *http.Client,
	scheme *runtime.Scheme) (cache.ListerWatcher, error) {
	pods, err := apiutil.RESTClientForGVK(corev1.SchemeGroupVersion.WithKind("Pod"), false, false,
		config, serializer.NewCodecFactory(scheme), connections)
	if err != nil {
		return nil, fmt.Errorf("making a client for pods: %w", err)
	}
	return cache.NewListWatchFromClient(pods, "pods", corev1.NamespaceAll, fields.Everything()),
		nil
}

// podFeed puts pods into the model as the API server streams them. The model has the only copy: a
// cluster may have 150,000 pods, and a cache of their objects would be most of the agent's memory.
//
// One goroutine, a reflector's, writes to it, in the order of the stream. So of two updates of one
// pod the later wins, though pods are read outside of Enforcer.Update.
type podFeed struct {
	agent *Agent
	once  sync.Once
	first chan struct{} // closed once the model has all pods of a list
}

func newPodFeed(a *Agent) *podFeed { return &podFeed{agent: a, first: make(chan struct{})} }

// run follows the pods until ctx ends.
func (f *podFeed) run(ctx context.Context, pods cache.ListerWatcher, log logr.Logger) {
	options := cache.ReflectorOptions{Name: "pods"}
	cache.NewReflectorWithOptions(pods, &corev1.Pod{}, f, options).
		RunWithContext(klog.NewContext(ctx, log))
}

// awaitList returns when the model has all pods, or false when ctx ends.
func (f *podFeed) awaitList(ctx context.Context, log logr.Logger) bool {
	log.V(1).Info("Waiting for the list of all pods. Until then the last ruleset stays")
	select {
	case <-f.first:
		return true
	case <-ctx.Done():
		return false
	}
}

// Transformer makes what policy reads of each pod while a list comes in, so that the whole objects
// are never there together.
func (f *podFeed) Transformer() cache.TransformFunc {
	return func(in any) (any, error) { return readPod(in) }
}

// readPod reads a pod's object, if that wasn't done before.
func readPod(in any) (*policy.Pod, error) {
	switch in := in.(type) {
	case *policy.Pod:
		return in, nil
	case *corev1.Pod:
		p := policy.PodFrom(in)
		return &p, nil
	}
	return nil, fmt.Errorf("%T is not a pod", in)
}

// Add puts a new pod into the model.
func (f *podFeed) Add(in any) error { return f.Update(in) }

// Update puts a pod into the model.
func (f *podFeed) Update(in any) error {
	p, err := readPod(in)
	if err != nil {
		return err
	}
	f.agent.Enforcer.Update(func(m *enforcer.Model) {
		f.agent.setPod(m, p)
		f.agent.Metrics.notePods(m.PodCount())
	})
	return nil
}

// Delete takes a pod out of the model.
func (f *podFeed) Delete(in any) error {
	p, err := readPod(in)
	if err != nil {
		return err
	}
	f.delete(p.Key())
	return nil
}

func (f *podFeed) delete(pod policy.Key) {
	f.agent.Enforcer.Update(func(m *enforcer.Model) {
		before := m.PodAddresses(pod.Namespace, pod.Name)
		m.DeletePod(pod.Namespace, pod.Name)
		f.agent.moved(before, nil)
		f.agent.PolicyOnly.forget(m.Cluster, pod)
		f.agent.Metrics.notePods(m.PodCount())
	})
}

// Replace makes a list the pods of the model: the first, or one after a watch has missed something.
// It goes pod by pod, so that others don't have to wait for the model meanwhile. What is gone goes
// first: others may have its addresses by now.
func (f *podFeed) Replace(list []any, _ string) error {
	var gone map[selector.Pod]struct{}
	f.agent.Enforcer.Update(func(m *enforcer.Model) { gone = m.Pods() })
	for i := range list {
		p, err := readPod(list[i])
		if err != nil {
			return err
		}
		list[i] = p
		delete(gone, p.ID)
	}
	for pod := range gone {
		f.delete(policy.Key{Namespace: pod.Namespace, Name: pod.Name})
	}
	for i := range list {
		if err := f.Update(list[i]); err != nil {
			return err
		}
		list[i] = nil // the model has it
	}
	f.once.Do(func() { close(f.first) })
	return nil
}

// Resync has nothing to do: the model is what the pods say.
func (f *podFeed) Resync() error { return nil }
