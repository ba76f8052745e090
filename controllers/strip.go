package controllers

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/policy"
)

// CacheOptions strips what is cached down to what is used: an agent holds every node and namespace
// of the cluster. Pods aren't cached, see podFeed.
func CacheOptions() cache.Options {
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.Namespace{}:           {Transform: strip},
		&corev1.Node{}:                {Transform: strip},
		&networkingv1.NetworkPolicy{}: {Transform: strip},
	}}
}

// RESTMapper knows the kinds that an agent reads. Asking the API server for them would end an agent
// that starts while that is away.
func RESTMapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	m.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	m.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	m.Add(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), meta.RESTScopeNamespace)
	m.Add(corev1.SchemeGroupVersion.WithKind("Service"), meta.RESTScopeNamespace)
	m.Add(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), meta.RESTScopeNamespace)
	return m
}

// strip returns a copy of an object with just the fields that policy reads. It leaves unknown types
// alone, such as the cache's tombstones.
func strip(in any) (any, error) {
	switch in := in.(type) {
	case *corev1.Namespace:
		return &corev1.Namespace{TypeMeta: in.TypeMeta, ObjectMeta: stripMeta(in.ObjectMeta)}, nil
	case *corev1.Node:
		out := &corev1.Node{TypeMeta: in.TypeMeta, ObjectMeta: stripMeta(in.ObjectMeta)}
		out.Labels = nil
		if underlay, ok := in.Annotations[policy.UnderlayAnnotation]; ok {
			out.Annotations = map[string]string{policy.UnderlayAnnotation: underlay}
		}
		out.Spec.PodCIDR, out.Spec.PodCIDRs = in.Spec.PodCIDR, in.Spec.PodCIDRs
		out.Status.Addresses = in.Status.Addresses
		if nodeReady(in) {
			out.Status.Conditions = []corev1.NodeCondition{
				{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		}
		return out, nil
	case *networkingv1.NetworkPolicy:
		return &networkingv1.NetworkPolicy{TypeMeta: in.TypeMeta,
			ObjectMeta: stripMeta(in.ObjectMeta), Spec: in.Spec}, nil
	}
	return in, nil
}

func stripMeta(in metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: in.Namespace, Name: in.Name, UID: in.UID, ResourceVersion: in.ResourceVersion,
		Generation: in.Generation,
		Labels:     in.Labels, CreationTimestamp: in.CreationTimestamp,
		DeletionTimestamp: in.DeletionTimestamp,
	}
}
