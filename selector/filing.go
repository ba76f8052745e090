package selector

import "slices"

// term is a label condition under which selectors are filed, so that a pod finds the selectors that
// may pick it from its own labels.
type term struct {
	kind       termKind
	key, value string
}

type termKind uint8

const (
	anyPod   termKind = iota // selectors without a positive requirement
	hasKey                   // selectors that want the key
	hasValue                 // selectors that want the key with this value
)

// drawer holds the selectors filed under one term, by where they look for pods.
type drawer struct {
	selectors int
	scopes    map[*scope][]*entry
}

// filing finds the selectors that may pick a pod. A selector is filed under one of its positive
// requirements only (under each of the values of that one), which every pod it picks must meet.
type filing map[term]*drawer

// add files the selector.
func (f filing) add(e *entry) {
	for _, t := range e.terms() {
		d := f[t]
		if d == nil {
			d = &drawer{scopes: make(map[*scope][]*entry)}
			f[t] = d
		}
		d.scopes[e.scope] = append(d.scopes[e.scope], e)
		d.selectors++
	}
}

// remove takes away a selector that is filed.
func (f filing) remove(e *entry) {
	for _, t := range e.terms() {
		d := f[t]
		rest := slices.DeleteFunc(d.scopes[e.scope], func(o *entry) bool { return o == e })
		if len(rest) == 0 {
			delete(d.scopes, e.scope)
		} else {
			d.scopes[e.scope] = rest
		}
		if d.selectors--; d.selectors == 0 {
			delete(f, t)
		}
	}
}

// crowd returns how many selectors share the fullest of these drawers.
func (f filing) crowd(terms []term) int {
	n := 0
	for _, t := range terms {
		if d := f[t]; d != nil {
			n = max(n, d.selectors)
		}
	}
	return n
}

// each calls visit, once each, for at least the selectors of these scopes that may pick the pod by
// its labels, and for none that looks outside the pod's namespace. All scopes must hold that
// namespace.
func (f filing) each(p *pod, scopes []*scope, visit func(*entry)) {
	f[term{}].each(p.ns, scopes, visit)
	for key, value := range p.labels.All() {
		f[term{hasKey, key, ""}].each(p.ns, scopes, visit)
		f[term{hasValue, key, value}].each(p.ns, scopes, visit)
	}
}

// each walks the shorter side: the scopes wanted, or those in the drawer. Many selectors that ask
// for one label in as many other namespaces cost nothing then, and neither do many scopes whose
// selectors ask for other labels.
func (d *drawer) each(ns *namespace, scopes []*scope, visit func(*entry)) {
	switch {
	case d == nil:
	case len(scopes) <= len(d.scopes):
		for _, sc := range scopes {
			for _, e := range d.scopes[sc] {
				visit(e)
			}
		}
	default:
		for sc, entries := range d.scopes {
			if !sc.has(ns) {
				continue
			}
			for _, e := range entries {
				visit(e)
			}
		}
	}
}

// positive reports whether only objects that have the key can meet r.
func (r Requirement) positive() bool {
	return r.Op == In || r.Op == Exists
}

// terms returns the terms that a positive canonical requirement is filed under.
func (r Requirement) terms() []term {
	if r.Op == Exists {
		return []term{{hasKey, r.Key, ""}}
	}
	terms := make([]term, len(r.Values))
	for i, value := range r.Values {
		terms[i] = term{hasValue, r.Key, value}
	}
	return terms
}
