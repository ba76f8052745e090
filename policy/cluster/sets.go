package cluster

import (
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// setState is a set in use, its members, and what became of them since the
// last Take.
type setState struct {
	policy.Set
	users   int
	payers  map[*account]int // uses that count in an account
	fresh   bool             // made since the last Take
	members map[policy.Member]struct{}
	// before says of each member touched since the last Take whether it was
	// one then.
	before map[policy.Member]bool
}

func newSetState(s policy.Set) *setState {
	return &setState{
		Set:     s,
		fresh:   true,
		members: map[policy.Member]struct{}{},
		payers:  map[*account]int{},
		before:  map[policy.Member]bool{},
	}
}

// put adds or removes a member; it is idempotent.
func (s *setState) put(m policy.Member, in bool) {
	_, was := s.members[m]
	if was == in {
		return
	}
	if _, touched := s.before[m]; !touched {
		s.before[m] = was
	}
	delta := 1
	if in {
		s.members[m] = struct{}{}
	} else {
		delete(s.members, m)
		delta = -1
	}
	for a := range s.payers {
		a.members += delta
	}
}

// replace makes the set hold exactly these members.
func (s *setState) replace(members []policy.Member) {
	keep := make(map[policy.Member]struct{}, len(members))
	for _, m := range members {
		keep[m] = struct{}{}
		s.put(m, true)
	}
	for m := range s.members {
		if _, ok := keep[m]; !ok {
			s.put(m, false)
		}
	}
}

// take returns what joined and what left since the last call, of the former
// as many as the budget says.
func (s *setState) take(budget *int) SetChange {
	ch := SetChange{Set: s.Set, Created: s.fresh}
	for m, was := range s.before {
		_, is := s.members[m]
		if is && !was {
			if *budget <= 0 {
				continue
			}
			*budget--
			ch.Add = append(ch.Add, m)
		} else if !is && was {
			ch.Remove = append(ch.Remove, m)
		}
		delete(s.before, m)
	}
	s.fresh = false
	return ch
}

// acquire takes the set into use and fills it when it is new.
func (c *Cluster) acquire(s *policy.Set) {
	set := c.sets[s.ID]
	if set != nil {
		set.users++
		return
	}
	set = newSetState(*s)
	set.users = 1
	c.sets[s.ID] = set
	if s.ID.Kind == policy.BlockSet {
		set.replace(c.blockMembers(s.Blocks))
		return
	}
	index, bySelector := c.pickers(s.ID.Kind)
	for _, picker := range s.Pods {
		key := index.Add(picker)
		if bySelector[key] == nil {
			bySelector[key] = map[policy.SetID]struct{}{}
		}
		bySelector[key][s.ID] = struct{}{}
		for p := range index.Members(key) {
			for _, m := range c.contribution(set, p) {
				set.put(m, true)
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
	index, bySelector := c.pickers(s.ID.Kind)
	for _, key := range s.Keys {
		delete(bySelector[key], s.ID)
		if len(bySelector[key]) == 0 {
			delete(bySelector, key)
		}
		index.Remove(key)
	}
	return true
}

// pickers returns the index that knows which pods the selectors of a kind of
// sets pick, and the sets by those selectors.
func (c *Cluster) pickers(
	kind policy.SetKind,
) (*selector.Index, map[selector.Key]map[policy.SetID]struct{}) {
	if kind == policy.LocalPortSet {
		return c.subjects, c.localBySelector
	}
	return c.peers, c.setsBySelector
}

// picks reports whether any of the set's selectors picks a pod.
func (c *Cluster) picks(set *setState, p selector.Pod) bool {
	index, bySelector := c.pickers(set.ID.Kind)
	for key := range index.Selectors(p) {
		if _, of := bySelector[key][set.ID]; of {
			return true
		}
	}
	return false
}
