package selector

import (
	"iter"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// maxFew is the size up to which a podSet is a slice. Most sets are the few replicas of one
// workload, and a large cluster has hundreds of thousands of sets.
const maxFew = 16

// podSet is a set of pods, small when it holds few. The zero value is empty.
type podSet struct {
	few  []Number        // used while many is nil
	many *roaring.Bitmap // takes over beyond maxFew, until the set is empty
}

// len returns the number of pods; a nil set has none.
func (s *podSet) len() int {
	switch {
	case s == nil:
		return 0
	case s.many != nil:
		return int(s.many.GetCardinality())
	}
	return len(s.few)
}

// has reports whether n is in the set.
func (s *podSet) has(n Number) bool {
	if s.many != nil {
		return s.many.Contains(uint32(n))
	}
	return slices.Contains(s.few, n)
}

// add puts n in the set; it must not be there yet.
func (s *podSet) add(n Number) {
	switch {
	case s.many != nil:
		s.many.Add(uint32(n))
	case len(s.few) < maxFew:
		s.few = append(s.few, n)
	default:
		s.many = roaring.New()
		for _, m := range s.few {
			s.many.Add(uint32(m))
		}
		s.many.Add(uint32(n))
		s.few = nil
	}
}

// remove takes n out of the set, if it is there.
func (s *podSet) remove(n Number) {
	if s.many != nil {
		s.many.Remove(uint32(n))
		if s.many.IsEmpty() {
			s.many = nil
		}
		return
	}
	if i := slices.Index(s.few, n); i >= 0 {
		last := len(s.few) - 1
		s.few[i] = s.few[last]
		s.few = s.few[:last]
	}
}

// all yields the pods in any order; a nil set has none. The set must not change meanwhile.
func (s *podSet) all() iter.Seq[Number] {
	return func(yield func(Number) bool) {
		if s == nil {
			return
		}
		for _, n := range s.few {
			if !yield(n) {
				return
			}
		}
		if s.many != nil {
			s.many.Iterate(func(n uint32) bool { return yield(Number(n)) })
		}
	}
}
