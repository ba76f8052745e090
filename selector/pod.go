package selector

import (
	"iter"
	"slices"
)

// pod is what the index knows of one pod.
type pod struct {
	id     Pod
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
		e.members.remove(p)
		changes = append(changes, Change{Selector: e.key, Pod: p.id, Member: false})
		return true
	})
	return changes
}

// maxFew is the size up to which a podSet is a slice. Most sets are the few replicas of one
// workload, and a large cluster has hundreds of thousands of sets.
const maxFew = 16

// podSet is a set of pods, small when it holds few. The zero value is empty.
type podSet struct {
	few  []*pod            // used while many is nil
	many map[*pod]struct{} // takes over beyond maxFew, until the set is empty
}

// len returns the number of pods; a nil set has none.
func (s *podSet) len() int {
	if s == nil {
		return 0
	}
	if s.many != nil {
		return len(s.many)
	}
	return len(s.few)
}

// has reports whether p is in the set.
func (s *podSet) has(p *pod) bool {
	if s.many != nil {
		_, found := s.many[p]
		return found
	}
	return slices.Contains(s.few, p)
}

// add puts p in the set; it must not be there yet.
func (s *podSet) add(p *pod) {
	switch {
	case s.many != nil:
		s.many[p] = struct{}{}
	case len(s.few) < maxFew:
		s.few = append(s.few, p)
	default:
		s.many = make(map[*pod]struct{}, maxFew+1)
		for _, q := range s.few {
			s.many[q] = struct{}{}
		}
		s.many[p] = struct{}{}
		s.few = nil
	}
}

// remove takes p out of the set, if it is there.
func (s *podSet) remove(p *pod) {
	if s.many != nil {
		delete(s.many, p)
		if len(s.many) == 0 {
			s.many = nil
		}
		return
	}
	i := slices.Index(s.few, p)
	if i < 0 {
		return
	}
	last := len(s.few) - 1
	s.few[i] = s.few[last]
	s.few[last] = nil
	s.few = s.few[:last]
}

// all yields the pods in any order; a nil set has none. The set must not change meanwhile.
func (s *podSet) all() iter.Seq[*pod] {
	return func(yield func(*pod) bool) {
		if s == nil {
			return
		}
		for _, p := range s.few {
			if !yield(p) {
				return
			}
		}
		for p := range s.many {
			if !yield(p) {
				return
			}
		}
	}
}
