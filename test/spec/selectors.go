package spec

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// requirements splits a selector into selectors of one requirement each.
func requirements(s metav1.LabelSelector) []metav1.LabelSelector {
	var out []metav1.LabelSelector
	for k, v := range s.MatchLabels {
		out = append(out, metav1.LabelSelector{MatchLabels: map[string]string{k: v}})
	}
	for _, e := range s.MatchExpressions {
		out = append(out,
			metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{e}})
	}
	return out
}

// subjectSelects reads spec.podSelector: all requirements must match, and one that can't be read
// does, so that the policy still isolates.
func subjectSelects(s metav1.LabelSelector, has map[string]string) bool {
	for _, one := range requirements(s) {
		r, err := metav1.LabelSelectorAsSelector(&one)
		if err == nil && !r.Matches(labels.Set(has)) {
			return false
		}
	}
	return true
}

// peerSelects reads a peer's selector: all requirements must match, and one that can't be read
// costs the peer.
func peerSelects(s metav1.LabelSelector, has map[string]string) bool {
	for _, one := range requirements(s) {
		r, err := metav1.LabelSelectorAsSelector(&one)
		if err != nil || !r.Matches(labels.Set(has)) {
			return false
		}
	}
	return true
}

// namespaceLabels returns the labels of a namespace, and whether its object is known. Every
// namespace has the label kubernetes.io/metadata.name.
func (w *World) namespaceLabels(name string) (map[string]string, bool) {
	for _, n := range w.Namespaces {
		if n.Name == name {
			out := maps.Clone(n.Labels)
			if out == nil {
				out = map[string]string{}
			}
			out[corev1.LabelMetadataName] = name
			return out, true
		}
	}
	return nil, false
}
