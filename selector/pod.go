package selector

import "slices"

// pod is what the index knows of one pod.
type pod struct {
	number Number
	labels LabelSet
	ns     *namespace
	in     []*entry // the selectors that pick it
}

// leave takes the pod out of its selectors for which gone is true, and appends the changes.
func (p *pod) leave(gone func(*entry) bool, changes []Change) []Change {
	p.in = slices.DeleteFunc(p.in, func(e *entry) bool {
		if !gone(e) {
			return false
		}
		e.members.remove(p.number)
		changes = append(changes, Change{Selector: e.key, Pod: p.number, Member: false})
		return true
	})
	return changes
}
