package lab

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab/wait"
)

// stored are one object of each kind that can be stored.
func stored() []client.Object {
	meta := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name,
			UID: types.UID(namespace + "/" + name), CreationTimestamp: metav1.Now(),
			Labels: map[string]string{"stored": "yes"}}
	}
	return []client.Object{
		&corev1.Namespace{ObjectMeta: meta("", "stored")},
		&corev1.Node{ObjectMeta: meta("", "stored")},
		&corev1.Pod{ObjectMeta: meta("stored", "pod"), Spec: corev1.PodSpec{NodeName: "stored",
			Containers: []corev1.Container{{Name: "main", Image: "none"}}}},
		&networkingv1.NetworkPolicy{ObjectMeta: meta("stored", "policy")},
	}
}

// TestStore: what is stored past the API server is what it answers with, watchers hear of it, and
// what is discarded is gone.
func TestStore(t *testing.T) {
	t.Parallel()
	l := newTestLab(t, Options{Name: testName("store"), Nodes: 1, NoAgent: true})
	watch, err := l.Client().Watch(t.Context(), &corev1.PodList{}, client.InNamespace("stored"))
	must(t, err)
	defer watch.Stop()
	heard := func(want string) {
		t.Helper()
		select {
		case event := <-watch.ResultChan():
			if string(event.Type) != want {
				t.Errorf("the watcher heard %s of %v, want %s", event.Type, event.Object, want)
			}
		case <-within(t, wait.ReadyTimeout).Done():
			t.Fatalf("the watcher didn't hear %s", want)
		}
	}
	must(t, l.Store(t.Context(), slices.Values(stored())))
	heard("ADDED")
	for _, o := range stored() {
		got := o.DeepCopyObject().(client.Object)
		got.SetLabels(nil)
		got.SetUID("")
		must(t, l.Client().Get(t.Context(), client.ObjectKeyFromObject(o), got))
		if got.GetLabels()["stored"] != "yes" || got.GetUID() != o.GetUID() {
			t.Errorf("%T is %v", o, got)
		}
	}
	must(t, l.Discard(t.Context(), slices.Values(stored())))
	heard("DELETED")
	for _, o := range stored() {
		err := l.Client().Get(t.Context(), client.ObjectKeyFromObject(o), o)
		if !apierrors.IsNotFound(err) {
			t.Errorf("%T: %v, want one that isn't found", o, err)
		}
	}

	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "stored", Name: "service"}}
	err = l.Store(t.Context(), slices.Values([]client.Object{service}))
	if err == nil || !strings.Contains(err.Error(), "storing a *v1.Service") {
		t.Errorf("a Service: %v", err)
	}
}
