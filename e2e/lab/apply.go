package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab/wait"
)

// fieldOwner is who applies manifests.
const fieldOwner = client.FieldOwner("sluice-lab")

// Apply applies manifests, separated by "---", in their order (server-side apply). What is
// namespaced and names no namespace goes into "default".
func (v *View) Apply(ctx context.Context, manifests string) error {
	objects, err := v.decode(manifests)
	if err != nil {
		return err
	}
	for _, object := range objects {
		err := v.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), fieldOwner,
			client.ForceOwnership)
		if err != nil {
			return fmt.Errorf("applying %s: %w", describe(object), err)
		}
	}
	return nil
}

// Delete deletes what manifests name, last first, and doesn't wait for it to be gone. What isn't
// there is no error.
func (v *View) Delete(ctx context.Context, manifests string) error {
	objects, err := v.decode(manifests)
	if err != nil {
		return err
	}
	for _, object := range slices.Backward(objects) {
		if err := v.client.Delete(ctx, object); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting %s: %w", describe(object), err)
		}
	}
	return nil
}

// WaitServed waits until the API server has a kind in a version ("group/version").
func (v *View) WaitServed(ctx context.Context, groupVersion, kind string) error {
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion(groupVersion)
	list.SetKind(kind + "List")
	for {
		err := v.client.List(ctx, list)
		if err == nil {
			return nil
		}
		if !wait.Pause(ctx, wait.PollEvery) {
			return fmt.Errorf("waiting for %s in %s: %w", kind, groupVersion, err)
		}
	}
}

func (v *View) decode(manifests string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading manifest %d: %w", len(objects)+1, err)
		}
		if len(object.Object) == 0 {
			continue // nothing, or comments, between two separators
		}
		namespaced, err := v.client.IsObjectNamespaced(object)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", describe(object), err)
		}
		if namespaced && object.GetNamespace() == "" {
			object.SetNamespace(corev1.NamespaceDefault)
		}
		objects = append(objects, object)
	}
}

// describe names an object for people.
func describe(object *unstructured.Unstructured) string {
	return fmt.Sprintf("%s %s", object.GetKind(), client.ObjectKeyFromObject(object))
}

// WaitReady waits until the pods named ("namespace/name"), or all pods if none is, have the
// condition Ready, for as long as ctx allows.
func (v *View) WaitReady(ctx context.Context, pods ...string) error {
	var missing []string
	err := v.waitFor(ctx, func(all []corev1.Pod) bool {
		wanted := pods
		ready := map[string]bool{}
		for _, pod := range all {
			if len(pods) == 0 {
				wanted = append(wanted, client.ObjectKeyFromObject(&pod).String())
			}
			// or its node was rebooted, and the API server doesn't know yet
			_, err := v.Pod(client.ObjectKeyFromObject(&pod).String())
			ready[client.ObjectKeyFromObject(&pod).String()] = isReady(&pod) &&
				pod.DeletionTimestamp == nil && err == nil
		}
		missing = nil
		for _, name := range wanted {
			if !ready[name] {
				missing = append(missing, name)
			}
		}
		return len(missing) == 0
	})
	if err != nil {
		return fmt.Errorf("waiting for pods %s to be ready: %w", strings.Join(missing, ", "), err)
	}
	return nil
}

// WaitGone waits until there is no pod of these names ("namespace/name"), for as long as ctx
// allows.
func (v *View) WaitGone(ctx context.Context, pods ...string) error {
	err := v.waitFor(ctx, func(all []corev1.Pod) bool {
		for _, pod := range all {
			for _, name := range pods {
				if client.ObjectKeyFromObject(&pod).String() == name {
					return false
				}
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("waiting for pods %s to be gone: %w", strings.Join(pods, ", "), err)
	}
	return nil
}

// waitFor lists all pods again and again until done says so.
func (v *View) waitFor(ctx context.Context, done func(pods []corev1.Pod) bool) error {
	tick := time.NewTicker(wait.PollEvery)
	defer tick.Stop()
	for {
		var list corev1.PodList
		err := v.client.List(ctx, &list)
		if err == nil && done(list.Items) {
			return nil
		}
		if apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
