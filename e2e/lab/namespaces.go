package lab

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab/wait"
)

// emptyNamespace does the namespace controller's work on a namespace that is being deleted, for the
// kinds that a lab is for: it deletes everything in it, waits, and lets the namespace go.
func (l *Lab) emptyNamespace(ctx context.Context, name string) {
	for {
		empty, err := l.deleteContent(ctx, name)
		if err == nil && empty {
			err = l.finalize(ctx, name)
		}
		if err == nil && empty || apierrors.IsNotFound(err) || !wait.Pause(ctx, wait.RetryEvery) {
			return
		}
	}
}

// deleteContent deletes what is in a namespace, and says whether nothing was.
func (l *Lab) deleteContent(ctx context.Context, namespace string) (empty bool, err error) {
	empty = true
	for object, list := range map[client.Object]client.ObjectList{
		&corev1.Pod{}:                 &corev1.PodList{},
		&networkingv1.NetworkPolicy{}: &networkingv1.NetworkPolicyList{},
		&corev1.Service{}:             &corev1.ServiceList{},
		&corev1.ConfigMap{}:           &corev1.ConfigMapList{},
		&corev1.Secret{}:              &corev1.SecretList{},
		&corev1.ServiceAccount{}:      &corev1.ServiceAccountList{},
		&corev1.Event{}:               &corev1.EventList{},
	} {
		listErr := l.client.List(ctx, list, client.InNamespace(namespace))
		if listErr == nil && meta.LenList(list) == 0 {
			continue
		}
		empty = false
		err = errors.Join(err, listErr,
			l.client.DeleteAllOf(ctx, object, client.InNamespace(namespace)))
	}
	return empty, err
}

// finalize takes the finalizer away that keeps a namespace.
func (l *Lab) finalize(ctx context.Context, name string) error {
	var namespace corev1.Namespace
	if err := l.client.Get(ctx, client.ObjectKey{Name: name}, &namespace); err != nil {
		return err
	}
	namespace.Spec.Finalizers = nil
	return l.client.SubResource("finalize").Update(ctx, &namespace)
}
