package selector

import (
	"iter"
	"slices"
)

// namespace is what the index knows of one namespace. It exists while the namespace is known, has
// pods, or is named by a selector.
type namespace struct {
	name   string
	known  bool
	labels LabelSet // meaningful only if known
	pods   podSet
	exact  *scope   // the scope of the selectors that name this namespace, or nil
	scopes []*scope // every scope the namespace is in, exact included
}

// idle reports whether nothing needs the namespace any more.
func (ns *namespace) idle() bool {
	return !ns.known && ns.exact == nil && ns.pods.len() == 0
}

// scope is a set of namespaces that selectors look in: one by name, or the known ones that match a
// label selector. Selectors that look in the same namespaces share it, so each namespace is judged
// once for all of them.
type scope struct {
	name       string // that part of the selectors' keys
	labels     Labels // canonical; unused in an exact scope
	namespaces map[*namespace]struct{}
	selectors  int
}

// has reports whether the namespace is in the scope.
func (sc *scope) has(ns *namespace) bool {
	_, found := sc.namespaces[ns]
	return found
}

// add puts a namespace in the scope.
func (sc *scope) add(ns *namespace) {
	sc.namespaces[ns] = struct{}{}
	ns.scopes = append(ns.scopes, sc)
}

// remove takes a namespace out of the scope.
func (sc *scope) remove(ns *namespace) {
	delete(sc.namespaces, ns)
	ns.scopes = slices.DeleteFunc(ns.scopes, func(o *scope) bool { return o == sc })
}

// holdsFewerThan reports whether the scope's namespaces have less than limit pods. It stops
// counting there: a cluster may have thousands of namespaces.
func (sc *scope) holdsFewerThan(limit int) bool {
	n := 0
	for ns := range sc.namespaces {
		if n >= limit {
			break
		}
		n += ns.pods.len()
	}
	return n < limit
}

// pods yields the pods of the scope's namespaces, in any order.
func (sc *scope) pods() iter.Seq[Number] {
	return func(yield func(Number) bool) {
		for ns := range sc.namespaces {
			for n := range ns.pods.all() {
				if !yield(n) {
					return
				}
			}
		}
	}
}

// namespace returns the record of a namespace, new if need be.
func (ix *Index) namespace(name string) *namespace {
	ns := ix.namespaces[name]
	if ns == nil {
		ns = &namespace{name: name}
		ix.namespaces[name] = ns
	}
	return ns
}

// tidy forgets the namespace if nothing needs it.
func (ix *Index) tidy(ns *namespace) {
	if ns.idle() {
		delete(ix.namespaces, ns.name)
	}
}

// acquire returns the scope of a selector and counts the selector in. A scope that is new is
// matched against every namespace.
func (ix *Index) acquire(s Selector) *scope {
	sc := ix.findScope(s)
	sc.selectors++
	return sc
}

func (ix *Index) findScope(s Selector) *scope {
	if s.Namespace != "" {
		ns := ix.namespace(s.Namespace)
		if ns.exact == nil {
			ns.exact = newScope(s.scope(), nil)
			ns.exact.add(ns)
		}
		return ns.exact
	}
	name := s.scope()
	sc := ix.scopes[name]
	if sc == nil {
		sc = newScope(name, s.Namespaces.Canonical())
		ix.scopes[name] = sc
		for _, ns := range ix.namespaces {
			if ns.known && sc.labels.Matches(ns.labels) {
				sc.add(ns)
			}
		}
	}
	return sc
}

func newScope(name string, labels Labels) *scope {
	return &scope{name: name, labels: labels, namespaces: make(map[*namespace]struct{})}
}

// release counts a selector of the scope out, and forgets a scope that has no selector left.
func (ix *Index) release(sc *scope) {
	sc.selectors--
	if sc.selectors > 0 {
		return
	}
	delete(ix.scopes, sc.name) // no-op for an exact scope: it isn't kept there
	for ns := range sc.namespaces {
		sc.remove(ns)
		if ns.exact == sc {
			ns.exact = nil
		}
		ix.tidy(ns)
	}
}

// rescope judges a namespace anew after it was relabelled, became known or unknown, and moves its
// pods in and out of the selectors of the scopes that flipped.
func (ix *Index) rescope(ns *namespace) []Change {
	var entered []*scope
	left := false
	for _, sc := range ix.scopes {
		is, was := ns.known && sc.labels.Matches(ns.labels), sc.has(ns)
		switch {
		case is && !was:
			sc.add(ns)
			entered = append(entered, sc)
		case was && !is:
			sc.remove(ns)
			left = true
		}
	}
	if len(entered) == 0 && !left {
		return nil
	}
	outside := func(e *entry) bool { return !e.scope.has(ns) }
	var changes []Change
	for n := range ns.pods.all() {
		p := ix.pods.get(n)
		changes = p.leave(n, outside, changes)
		changes = ix.join(n, p, entered, changes)
	}
	return changes
}
