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

// CacheOptions strips what is cached down to what is used: an agent holds every pod of the cluster,
// 150,000 of them at the most.
func CacheOptions() cache.Options {
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.Pod{}:                 {Transform: strip},
		&corev1.Namespace{}:           {Transform: strip},
		&corev1.Node{}:                {Transform: strip},
		&networkingv1.NetworkPolicy{}: {Transform: strip},
	}}
}

// RESTMapper knows the kinds that an agent reads. Asking the API server for them would end an agent
// that starts while that is away.
func RESTMapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	m.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
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
	case *corev1.Pod:
		return stripPod(in), nil
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

func stripPod(in *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{TypeMeta: in.TypeMeta, ObjectMeta: stripMeta(in.ObjectMeta)}
	if mirror, ok := in.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		out.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: mirror}
	}
	out.Spec.NodeName, out.Spec.HostNetwork = in.Spec.NodeName, in.Spec.HostNetwork
	out.Spec.Containers = stripContainers(in.Spec.Containers)
	out.Spec.InitContainers = stripContainers(in.Spec.InitContainers)
	out.Status.Phase, out.Status.PodIP, out.Status.PodIPs = in.Status.Phase, in.Status.PodIP,
		in.Status.PodIPs
	return out
}

// stripContainers keeps the containers that have named ports.
func stripContainers(in []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for i := range in {
		var ports []corev1.ContainerPort
		for _, p := range in[i].Ports {
			if p.Name != "" {
				ports = append(ports, p)
			}
		}
		if len(ports) > 0 {
			out = append(out, corev1.Container{Name: in[i].Name, Ports: ports,
				RestartPolicy: in[i].RestartPolicy})
		}
	}
	return out
}
