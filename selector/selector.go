package selector

// Selector picks pods: those whose labels match Pods, in the namespaces that Namespace or
// Namespaces name. The zero Selector picks every pod of every known namespace.
type Selector struct {
	// Namespace, if not empty, names the one namespace whose pods are picked. Namespaces is then
	// ignored, and the namespace need not be known yet.
	Namespace string

	// Namespaces picks the namespaces by their labels. A namespace that isn't known has no labels
	// to judge, so nothing matches it, not even the empty selector.
	Namespaces Labels

	// Pods picks the pods of those namespaces by their labels.
	Pods Labels
}

// Key is the canonical text of a [Selector]. Two selectors have equal keys if and only if they are
// the same once requirements and values are sorted and duplicates removed. It reads like
//
//	namespace shop: app=web
//	namespaces team in (a, b): all
type Key string

// Key returns the selector's canonical text.
func (s Selector) Key() Key {
	return Key(s.scope() + ": " + s.Pods.String())
}

// scope is the part of the key that says in which namespaces to look.
func (s Selector) scope() string {
	if s.Namespace != "" {
		return "namespace " + word(s.Namespace)
	}
	return "namespaces " + s.Namespaces.String()
}

// Namespace is a namespace as selectors see it.
type Namespace struct {
	Name   string
	Known  bool // otherwise it has no labels to judge
	Labels LabelSet
}

// Matches reports whether the selector picks a pod with these labels in this namespace.
func (s Selector) Matches(ns Namespace, pod LabelSet) bool {
	if s.Namespace != "" {
		if ns.Name != s.Namespace {
			return false
		}
	} else if !ns.Known || !s.Namespaces.Matches(ns.Labels) {
		return false
	}
	return s.Pods.Matches(pod)
}
