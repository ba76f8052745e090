package cluster

import (
	"iter"
	"slices"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// setState is a set in use, and what became of its members since the last Take. Which those are
// isn't kept: pods have them, and what changes a pod or who picks it says what it does to them.
type setState struct {
	policy.Set
	users   int
	payers  map[*account]int // uses that count in an account
	fresh   bool             // made since the last Take
	ranges  []policy.Member  // of a BlockSet: no pod has them
	size    int              // of the members
	touched map[policy.Member]touch
	// waiting are members that no Take has told of, as there were more than it was to tell.
	waiting map[policy.Member]struct{}
}

// touch says whether something was a member at the last Take, and whether it is one now.
type touch struct{ was, is bool }

func newSetState(s policy.Set) *setState {
	return &setState{
		Set: s, fresh: true, payers: map[*account]int{}, touched: map[policy.Member]touch{},
		waiting: map[policy.Member]struct{}{},
	}
}

// untold is how many members may have changed since the last Take, or wait since an earlier one.
func (s *setState) untold() int { return len(s.touched) + len(s.waiting) }

// put adds or removes a member. What hasn't been touched since the last Take must not have been
// one, or have been; the rest is idempotent.
func (s *setState) put(m policy.Member, in bool) {
	t, touched := s.touched[m]
	if _, waits := s.waiting[m]; waits {
		t, touched = touch{was: false, is: true}, true
	}
	if touched && t.is == in {
		return
	}
	delete(s.waiting, m)
	if !touched {
		t.was = !in
	}
	t.is = in
	s.touched[m] = t
	delta := 1
	if !in {
		delta = -1
	}
	s.size += delta
	for a := range s.payers {
		a.members += delta
	}
}

// replace makes a BlockSet hold exactly these ranges.
func (s *setState) replace(ranges []policy.Member) {
	old := s.ranges
	s.ranges = ranges
	for _, m := range without(ranges, old) {
		s.put(m, true)
	}
	for _, m := range without(old, ranges) {
		s.put(m, false)
	}
}

// without lists those members that aren't among the others.
func without(members, others []policy.Member) (out []policy.Member) {
	in := make(map[policy.Member]bool, len(others))
	for _, m := range others {
		in[m] = true
	}
	for _, m := range members {
		if !in[m] {
			out = append(out, m)
		}
	}
	return out
}

// take returns what joined and what left since the last call, of the former as many as the budget
// says. It costs what it returns and what was touched, however many wait: a set may have as many
// members as the cluster has pods.
//
// Ranges of several policies come whole: one that joins may be another that leaves, made longer. So
// do members that rules deny or pass: without them, more is allowed.
func (s *setState) take(budget *int) SetChange {
	if s.Union && s.ID.Kind == policy.BlockSet || s.ID.For != policy.Accept {
		*budget -= len(s.touched)
		budget = new(Everything)
	}
	ch := SetChange{Set: s.Set, Created: s.fresh}
	for m := range s.waiting {
		if *budget <= 0 {
			break
		}
		*budget--
		ch.Add = append(ch.Add, m)
		delete(s.waiting, m)
	}
	for m, t := range s.touched {
		switch {
		case !t.is && t.was:
			ch.Remove = append(ch.Remove, m)
		case t.is && !t.was && *budget > 0:
			*budget--
			ch.Add = append(ch.Add, m)
		case t.is && !t.was:
			s.waiting[m] = struct{}{}
		}
	}
	if len(s.touched) > 0 {
		s.touched = map[policy.Member]touch{} // a map keeps the room that it had
	}
	if len(s.waiting) == 0 && len(ch.Add) > 0 {
		s.waiting = map[policy.Member]struct{}{}
	}
	s.fresh = false
	return ch
}

// acquire takes the set into use and fills it when it is new.
func (c *Cluster) acquire(s *policy.Set) {
	set := c.sets[s.ID]
	if set != nil {
		set.users++
		if !s.Equal(&set.Set) {
			c.repick(set, s)
		}
		return
	}
	set = newSetState(*s)
	set.users = 1
	c.sets[s.ID] = set
	if s.ID.Kind == policy.BlockSet {
		set.replace(c.blockMembers(s))
		return
	}
	for _, picker := range s.Pods {
		c.addPicker(set, picker)
	}
	for m := range c.members(set) {
		set.put(m, true)
	}
}

func (c *Cluster) addPicker(set *setState, picker selector.Selector) {
	index, bySelector := c.pickers(set.ID.Kind)
	key := index.Add(picker)
	if bySelector[key] == nil {
		bySelector[key] = map[policy.SetID]struct{}{}
	}
	bySelector[key][set.ID] = struct{}{}
}

func (c *Cluster) removePicker(set *setState, key selector.Key) {
	index, bySelector := c.pickers(set.ID.Kind)
	delete(bySelector[key], set.ID)
	if len(bySelector[key]) == 0 {
		delete(bySelector, key)
	}
	index.Remove(key)
}

// repick gives a set that is in use other peers: only what that changes is put.
func (c *Cluster) repick(set *setState, s *policy.Set) {
	old := set.Set
	set.Set = *s
	if s.ID.Kind == policy.BlockSet {
		set.replace(c.blockMembers(s))
		return
	}
	index, _ := c.pickers(s.ID.Kind)
	gone := make(map[selector.Key]bool, len(old.Keys))
	for _, key := range old.Keys {
		gone[key] = true
	}
	for i, key := range s.Keys {
		if gone[key] {
			delete(gone, key)
			continue
		}
		c.addPicker(set, s.Pods[i])
		for n := range index.Members(key) {
			if c.picks(set, n) == 1 { // by this one alone
				c.putPod(set, n, true)
			}
		}
	}
	for key := range gone {
		lost := slices.Collect(index.Members(key))
		c.removePicker(set, key)
		for _, n := range lost {
			if c.picks(set, n) == 0 {
				c.putPod(set, n, false)
			}
		}
	}
}

// putPod adds or removes all that a pod is in a set.
func (c *Cluster) putPod(set *setState, n selector.Number, in bool) {
	for _, m := range c.contribution(set, n) {
		set.put(m, in)
	}
}

// members are the members of a set; one may come twice.
func (c *Cluster) members(set *setState) iter.Seq[policy.Member] {
	if set.ID.Kind == policy.BlockSet {
		return slices.Values(set.ranges)
	}
	index, _ := c.pickers(set.ID.Kind)
	return func(yield func(policy.Member) bool) {
		for _, key := range set.Keys {
			for n := range index.Members(key) {
				for _, m := range c.contribution(set, n) {
					if !yield(m) {
						return
					}
				}
			}
		}
	}
}

// release gives one use of the set back; gone is true when it was the last.
func (c *Cluster) release(s *policy.Set) (gone bool) {
	set := c.sets[s.ID]
	if set.users--; set.users > 0 {
		return false
	}
	delete(c.sets, s.ID)
	for _, key := range set.Keys {
		c.removePicker(set, key)
	}
	return true
}

// pickers returns the index that knows which pods the selectors of a kind of sets pick, and the
// sets by those selectors.
func (c *Cluster) pickers(
	kind policy.SetKind,
) (*selector.Index, map[selector.Key]map[policy.SetID]struct{}) {
	if kind == policy.LocalPortSet {
		return c.subjects, c.localBySelector
	}
	return c.peers, c.setsBySelector
}

// picks counts the selectors of a set that pick a pod.
func (c *Cluster) picks(set *setState, p selector.Number) (n int) {
	index, bySelector := c.pickers(set.ID.Kind)
	for key := range index.Selectors(p) {
		if _, of := bySelector[key][set.ID]; of {
			n++
		}
	}
	return n
}
