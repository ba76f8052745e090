package selector

import "slices"

// pod is what the index knows of one pod, besides its number.
type pod struct {
	labels LabelSet
	ns     *namespace
	in     []*entry // the selectors that pick it
}

// leave takes the pod out of its selectors for which gone is true, and appends the changes.
func (p *pod) leave(n Number, gone func(*entry) bool, changes []Change) []Change {
	p.in = slices.DeleteFunc(p.in, func(e *entry) bool {
		if !gone(e) {
			return false
		}
		e.members.remove(n)
		changes = append(changes, Change{Selector: e.key, Pod: n, Member: false})
		return true
	})
	return changes
}
