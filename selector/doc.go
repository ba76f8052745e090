// Package selector answers "which pods does this selector pick?", keeps the answer up to date while
// pods, namespaces and selectors change, and does the arithmetic on CIDR blocks and port ranges
// that a network policy needs.
//
// # Model
//
// A [Selector] is a pod selector together with the namespaces it looks in: one namespace by name,
// or all known namespaces whose labels match. It is plain data. Its [Key] is its canonical text, so
// two policies that spell the same selector differently share one entry.
//
// An [Index] holds selectors, pods and namespaces. Every event (a pod or a namespace appears, is
// relabelled or goes away) returns the memberships it changed, as a list of [Change], and nothing
// when it changed none. It knows pods by numbers, see [Number]; equal labels of them are one
// [LabelSet] in memory. The members depend only on what the index holds now, never on the order of
// the events: they are the pods for which [Selector.Matches] is true.
//
// The cost of an event follows what it touches: the labels of the pod and the selectors that ask
// for one of them, or the pods of the namespace that changed. It doesn't grow with the number of
// pods in the cluster, nor with the number of selectors that ask for other labels or other
// namespaces. Only namespaces are matched one by one: each against a namespace selector that is
// new, and one that changed against each distinct namespace selector.
//
// [ParseCIDR] and [Subtract] turn the blocks of a policy into disjoint address ranges; [MergePorts]
// does the same for ports.
//
// # What it is not for
//
// The package knows neither Kubernetes objects nor network policies: it doesn't read label
// selectors from the API, doesn't know which pods count (host network, finished) and knows no pod's
// address. It does no I/O, starts no goroutines, and nothing in it locks.
package selector
