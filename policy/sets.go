package policy

// setState is a set in use, its members, and what became of them since the
// last Take.
type setState struct {
	Set
	users   int
	fresh   bool // made since the last Take
	members map[Member]struct{}
	// before says of each member touched since the last Take whether it was
	// one then.
	before map[Member]bool
}

func newSetState(s Set) *setState {
	return &setState{Set: s, fresh: true, members: map[Member]struct{}{}, before: map[Member]bool{}}
}

// put adds or removes a member; it is idempotent.
func (s *setState) put(m Member, in bool) {
	_, was := s.members[m]
	if was == in {
		return
	}
	if _, touched := s.before[m]; !touched {
		s.before[m] = was
	}
	if in {
		s.members[m] = struct{}{}
	} else {
		delete(s.members, m)
	}
}

// replace makes the set hold exactly these members.
func (s *setState) replace(members []Member) {
	keep := make(map[Member]struct{}, len(members))
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

// take returns what joined and what left since the last call.
func (s *setState) take() SetChange {
	ch := SetChange{Set: s.Set, Created: s.fresh}
	for m, was := range s.before {
		if _, is := s.members[m]; is && !was {
			ch.Add = append(ch.Add, m)
		} else if !is && was {
			ch.Remove = append(ch.Remove, m)
		}
	}
	clear(s.before)
	s.fresh = false
	return ch
}

// acquire takes the set into use and fills it when it is new.
func (c *Cluster) acquire(s *Set) {
	set := c.sets[s.ID]
	if set != nil {
		set.users++
		return
	}
	set = newSetState(*s)
	set.users = 1
	c.sets[s.ID] = set
	if s.ID.Kind == BlockSet {
		set.replace(blockMembers(s.Block, c.trustedNodes(), c.opts.Node))
		return
	}
	index, byselector := c.peers, c.setsBySelector
	if s.ID.Kind == LocalPortSet {
		index, byselector = c.subjects, c.localBySelector
	}
	key := index.Add(s.Selector)
	if byselector[key] == nil {
		byselector[key] = map[SetID]struct{}{}
	}
	byselector[key][s.ID] = struct{}{}
	for p := range index.Members(key) {
		for _, m := range c.contribution(set, p) {
			set.put(m, true)
		}
	}
}

// release gives one use of the set back; gone is true when it was the last.
func (c *Cluster) release(s *Set) (gone bool) {
	set := c.sets[s.ID]
	if set.users--; set.users > 0 {
		return false
	}
	delete(c.sets, s.ID)
	if s.ID.Kind == BlockSet {
		return true
	}
	index, byselector := c.peers, c.setsBySelector
	if s.ID.Kind == LocalPortSet {
		index, byselector = c.subjects, c.localBySelector
	}
	key := s.ID.Selector
	delete(byselector[key], s.ID)
	if len(byselector[key]) == 0 {
		delete(byselector, key)
	}
	index.Remove(key)
	return true
}
