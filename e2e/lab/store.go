package lab

import (
	"bytes"
	"context"
	"fmt"
	"iter"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	storesAtOnce = 8
	registry     = "/registry/" // what the API server's keys begin with
)

// Store writes objects where the API server keeps its own, in minutes where creating them takes
// hours. Watchers hear of them; but nothing is validated, defaulted or admitted, so they have to be
// whole, with UID and time of creation. Nodes, Namespaces, Pods and NetworkPolicies can be stored,
// in no order. Their kind is set.
func (l *Lab) Store(ctx context.Context, objects iter.Seq[client.Object]) error {
	return l.eachStored(ctx, objects,
		func(ctx context.Context, key string, o client.Object, kind schema.GroupVersionKind) error {
			value, err := encodeStored(o, kind)
			if err != nil {
				return fmt.Errorf("encoding %s: %w", key, err)
			}
			return l.control.Put(ctx, key, value)
		})
}

// Discard removes objects in the same way. Only kind and name count.
func (l *Lab) Discard(ctx context.Context, objects iter.Seq[client.Object]) error {
	return l.eachStored(ctx, objects,
		func(ctx context.Context, key string, _ client.Object, _ schema.GroupVersionKind) error {
			return l.control.Delete(ctx, key)
		})
}

// eachStored does something with each object, several at a time.
func (l *Lab) eachStored(ctx context.Context, objects iter.Seq[client.Object],
	do func(context.Context, string, client.Object, schema.GroupVersionKind) error) error {
	storing, working := errgroup.WithContext(ctx)
	storing.SetLimit(storesAtOnce)
	for o := range objects {
		if working.Err() != nil {
			break
		}
		storing.Go(func() error {
			key, kind, err := storedAs(o)
			if err != nil {
				return err
			}
			return do(working, key, o, kind)
		})
	}
	if err := storing.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx) // some were left out, then
}

// storedAs is the key of an object in etcd, and its kind.
func storedAs(o client.Object) (key string, kind schema.GroupVersionKind, err error) {
	switch o.(type) {
	case *corev1.Node:
		return registry + "minions/" + o.GetName(), corev1.SchemeGroupVersion.WithKind("Node"),
			nil
	case *corev1.Namespace:
		return registry + "namespaces/" + o.GetName(),
			corev1.SchemeGroupVersion.WithKind("Namespace"), nil
	case *corev1.Pod:
		return registry + "pods/" + o.GetNamespace() + "/" + o.GetName(),
			corev1.SchemeGroupVersion.WithKind("Pod"), nil
	case *networkingv1.NetworkPolicy:
		return registry + "networkpolicies/" + o.GetNamespace() + "/" + o.GetName(),
			networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), nil
	}
	return "", kind, fmt.Errorf("storing a %T: its key in etcd isn't known", o)
}

// encodeStored is the API server's own form of built-in kinds.
func encodeStored(o client.Object, kind schema.GroupVersionKind) ([]byte, error) {
	o.GetObjectKind().SetGroupVersionKind(kind)
	var value bytes.Buffer
	err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(o, &value)
	return value.Bytes(), err
}
