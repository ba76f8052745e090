package selector

import (
	"cmp"
	"iter"
	"math"
	"slices"
)

// Pod identifies a pod for users of this package. A pod that is deleted and created again with the
// same name has another UID and is another pod.
type Pod struct {
	Namespace string
	Name      string
	UID       string
}

// Number stands for a pod in an [Index]. The caller numbers the pods, from 0 on and without large
// gaps: sets of pods are bitmaps.
type Number uint32

// Change says that a pod joined (Member is true) or left the members of a selector.
type Change struct {
	Selector Key
	Pod      Number
	Member   bool
}

// Index knows at every moment which pods each of its selectors picks. It is not safe for concurrent
// use, and must not change while one of its iterators runs.
//
// Events may come in any order: pods before their namespace, selectors before both. The changes an
// event returns are in no particular order; each selector and pod occur together at most once, and
// only if the membership is not what it was before the event.
type Index struct {
	selectors  map[Key]*entry
	pods       podTable
	namespaces map[string]*namespace
	scopes     map[string]*scope // those by label, by name
	filing     filing            // pod → selectors that may pick it
	postings   postings          // selector → pods it may pick
}

// entry is one selector in use.
type entry struct {
	key     Key
	refs    int
	scope   *scope
	pods    Labels // canonical
	filed   int    // the positive requirement in pods it is filed under, or -1
	members podSet
}

// terms returns what the selector is filed under.
func (e *entry) terms() []term {
	if e.filed < 0 {
		return []term{{}}
	}
	return e.pods[e.filed].terms()
}

// picks reports whether the selector picks the pod.
func (e *entry) picks(p *pod) bool {
	return e.scope.has(p.ns) && e.pods.Matches(p.labels)
}

// NewIndex returns an index without selectors, pods and namespaces.
func NewIndex() *Index {
	return &Index{
		selectors:  make(map[Key]*entry),
		namespaces: make(map[string]*namespace),
		scopes:     make(map[string]*scope),
		filing:     make(filing),
		postings:   make(postings),
	}
}

// Add takes a reference to the selector and returns its key. With the first reference the
// selector's members are computed, from the pods of its namespaces or from those with a label it
// asks for, whichever are fewer. The members found are not reported as changes: read them with
// Members. The index keeps no memory of s.
func (ix *Index) Add(s Selector) Key {
	key := s.Key()
	if e := ix.selectors[key]; e != nil {
		e.refs++
		return key
	}
	e := &entry{key: key, refs: 1, scope: ix.acquire(s), pods: s.Pods.Canonical()}
	e.filed = ix.drawerFor(e.pods)
	ix.selectors[key] = e
	ix.filing.add(e)
	for n := range ix.candidates(e) {
		if p := ix.pods.get(n); e.picks(p) {
			e.members.add(n)
			p.in = append(p.in, e)
		}
	}
	return key
}

// drawerFor chooses the requirement to file a selector under, so that few pods and few selectors
// meet there: a value rather than a mere key, then the emptiest drawer. That spreads selectors
// which share a common label over their other labels. It is -1 without a positive requirement.
func (ix *Index) drawerFor(labels Labels) int {
	best := -1
	for i, r := range labels {
		if r.positive() && (best < 0 || ix.compareDrawers(r, labels[best]) < 0) {
			best = i
		}
	}
	return best
}

// compareDrawers is negative if a is the better requirement to file under.
func (ix *Index) compareDrawers(a, b Requirement) int {
	return cmp.Or(
		-cmp.Compare(a.Op, b.Op), // In before Exists
		cmp.Compare(ix.filing.crowd(a.terms()), ix.filing.crowd(b.terms())),
	)
}

// candidates yields at least the pods that the selector picks: the smallest group that its
// namespaces or one of its requirements give.
func (ix *Index) candidates(e *entry) iter.Seq[Number] {
	fewest, rarest := math.MaxInt, -1
	for i, r := range e.pods {
		if !r.positive() {
			continue
		}
		if n := ix.postings.count(r); n < fewest {
			fewest, rarest = n, i
		}
	}
	if rarest < 0 || e.scope.holdsFewerThan(fewest) {
		return e.scope.pods()
	}
	return ix.postings.all(e.pods[rarest])
}

// Remove drops one reference to a selector. The last one forgets the selector and its members,
// without changes being reported. A key that isn't in use is ignored.
func (ix *Index) Remove(k Key) {
	e := ix.selectors[k]
	if e == nil {
		return
	}
	e.refs--
	if e.refs > 0 {
		return
	}
	for n := range e.members.all() {
		p := ix.pods.get(n)
		p.in = slices.DeleteFunc(p.in, func(o *entry) bool { return o == e })
	}
	ix.filing.remove(e)
	delete(ix.selectors, k)
	ix.release(e.scope)
}

// SetPod adds a pod or replaces its labels, and returns the memberships that changed. The namespace
// is that of the pod until it is deleted.
func (ix *Index) SetPod(n Number, namespace string, labels LabelSet) []Change {
	known := ix.pods.get(n)
	if known == nil {
		known = ix.pods.add(n, ix.namespace(namespace))
		known.ns.pods.add(n)
	} else if known.labels == labels {
		return nil
	}
	ix.postings.move(n, known.labels, labels)
	known.labels = labels
	changes := known.leave(n, func(e *entry) bool { return !e.pods.Matches(labels) }, nil)
	return ix.join(n, known, known.ns.scopes, changes)
}

// join makes the pod a member of the selectors of these scopes that pick it, as far as it isn't
// one, and appends the changes. The pod's namespace must be in all the scopes.
func (ix *Index) join(n Number, p *pod, scopes []*scope, changes []Change) []Change {
	if len(scopes) == 0 {
		return changes
	}
	ix.filing.each(p, scopes, func(e *entry) {
		if !e.pods.Matches(p.labels) || e.members.has(n) {
			return
		}
		e.members.add(n)
		p.in = append(p.in, e)
		changes = append(changes, Change{Selector: e.key, Pod: n, Member: true})
	})
	return changes
}

// DeletePod forgets a pod and returns the memberships it had. A pod that isn't known is ignored.
func (ix *Index) DeletePod(n Number) []Change {
	known := ix.pods.get(n)
	if known == nil {
		return nil
	}
	changes := known.leave(n, func(*entry) bool { return true }, nil)
	ix.postings.move(n, known.labels, LabelSet{})
	known.ns.pods.remove(n)
	ix.tidy(known.ns)
	ix.pods.remove(n)
	return changes
}

// SetNamespace makes a namespace known or replaces its labels, and returns the memberships of its
// pods that changed.
func (ix *Index) SetNamespace(name string, labels LabelSet) []Change {
	ns := ix.namespace(name)
	same := ns.known && ns.labels == labels
	ns.known, ns.labels = true, labels
	if same {
		return nil
	}
	return ix.rescope(ns)
}

// DeleteNamespace makes a namespace unknown and returns the memberships its pods lost. The pods
// stay, and so do their memberships in the selectors that name the namespace. A namespace that
// isn't known is ignored.
func (ix *Index) DeleteNamespace(name string) []Change {
	ns := ix.namespaces[name]
	if ns == nil || !ns.known {
		return nil
	}
	ns.known, ns.labels = false, LabelSet{}
	changes := ix.rescope(ns)
	ix.tidy(ns)
	return changes
}

// Has reports whether the selector is in use.
func (ix *Index) Has(k Key) bool {
	return ix.selectors[k] != nil
}

// Len returns the number of pods the selector picks, 0 if it isn't in use.
func (ix *Index) Len(k Key) int {
	if e := ix.selectors[k]; e != nil {
		return e.members.len()
	}
	return 0
}

// Members returns the pods the selector picks, in any order; none if it isn't in use.
func (ix *Index) Members(k Key) iter.Seq[Number] {
	if e := ix.selectors[k]; e != nil {
		return e.members.all()
	}
	return func(func(Number) bool) {}
}

// Selectors returns the selectors that pick the pod, in any order; none if the pod isn't known.
func (ix *Index) Selectors(n Number) iter.Seq[Key] {
	return func(yield func(Key) bool) {
		known := ix.pods.get(n)
		if known == nil {
			return
		}
		for _, e := range known.in {
			if !yield(e.key) {
				return
			}
		}
	}
}
