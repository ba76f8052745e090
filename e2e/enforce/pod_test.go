package enforce

import (
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/internal/podprogram"
	"github.com/sluice-net/sluice/e2e/lab/kubelet"
	"github.com/sluice-net/sluice/test/stretch"
)

// startLimit is how long a pod may take to run and report on a machine where many start at once.
var startLimit = stretch.By(3 * time.Minute)

// deletePod deletes a pod and waits until it is gone.
func (w *world) deletePod(name string) error {
	namespace, short := split(name)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: short}}
	if err := w.Client().Delete(w.t.Context(), pod, client.GracePeriodSeconds(1)); err != nil {
		return err
	}
	return w.WaitGone(w.t.Context(), name)
}

// getPod reads a pod's object.
func (w *world) getPod(name string) (*corev1.Pod, error) {
	namespace, short := split(name)
	pod := &corev1.Pod{}
	err := w.Client().Get(w.t.Context(), client.ObjectKey{Namespace: namespace, Name: short}, pod)
	return pod, err
}

// startFailure returns why a pod didn't start the last time it was tried.
func (w *world) startFailure(name string) string {
	pod, err := w.getPod(name)
	if err != nil {
		return err.Error()
	}
	for _, status := range pod.Status.ContainerStatuses {
		if status.State.Waiting != nil {
			return status.State.Waiting.Message
		}
	}
	return ""
}

// firstConnect returns the outcome of a pod's first act, once it is reported.
func (w *world) firstConnect(name string) (out podprogram.FirstConnect, done bool) {
	pod, err := w.getPod(name)
	if err != nil {
		return out, false
	}
	text, ok := pod.Annotations[kubelet.FirstConnectResultAnnotation]
	if !ok || json.Unmarshal([]byte(text), &out) != nil {
		return out, false
	}
	return out, true
}

// awaitFirstConnect waits for the outcome of a pod's first act.
func (w *world) awaitFirstConnect(name string) (out podprogram.FirstConnect, done bool) {
	tick := time.NewTicker(stretch.By(100 * time.Millisecond))
	defer tick.Stop()
	for deadline := time.Now().Add(startLimit); time.Now().Before(deadline); <-tick.C {
		if out, done = w.firstConnect(name); done {
			return out, true
		}
	}
	return out, false
}
