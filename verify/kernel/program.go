package kernel

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Program is the content of the table as the kernel runs it. It isn't changed once it is decoded,
// so several goroutines may read it.
type Program struct {
	chains map[string]*chain
	sets   map[string]*set
	// bases are the base chains of each hook, in the order in which a packet meets them.
	bases map[Hook][]*chain
	// indexes are the ways in which rules look sets up.
	indexes []*index
	byUse   map[string]*index
}

// Hook is a place in a packet's path, numbered as in linux/netfilter.h.
type Hook uint32

// The hooks of the inet family.
const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
)

func (h Hook) String() string {
	names := [...]string{"prerouting", "input", "forward", "output", "postrouting"}
	if int(h) < len(names) {
		return names[h]
	}
	return fmt.Sprintf("hook %d", uint32(h))
}

type chain struct {
	name  string
	base  *base // nil: a regular chain
	rules []*rule
	reads reads // what its rules, and those of chains that it jumps to, look at
}

type base struct {
	hook     Hook
	priority int32
	nat      bool
}

// conntrackPriority is where connection tracking sits: a base chain before it sees no connection.
const conntrackPriority = -200

func (b *base) tracked() bool {
	return b.priority > conntrackPriority || b.hook != Prerouting && b.hook != Output
}

type rule struct {
	steps   []step
	comment string
	number  int // in its chain, from 1
}

// steps are what the rules of a chain do, one after the other.
func (c *chain) steps(yield func(step) bool) {
	for _, r := range c.rules {
		for _, s := range r.steps {
			if !yield(s) {
				return
			}
		}
	}
}

// A step is what a rule does next: a *match, a *lookup, a verdict or an effect. Counters, logs and
// limits that only keep logs small are no steps.
type step any

// effect is what a rule does beside verdicts.
type effect uint8

const (
	untrack effect = iota + 1 // leave the packet out of connection tracking
	mark                      // set the label of its connection
	reset                     // answer TCP with a reset; drop
)

// translate ends the rule with accept, for packets of one IP version or, 0, for all.
type translate struct{ version int }

type verdictKind uint8

const (
	accept verdictKind = iota + 1
	drop
	jump
	back // return
)

type verdict struct {
	kind  verdictKind
	name  string // of the target of a jump
	chain *chain
}

// A set is a named set or map: an exact one has keys, one of intervals has ranges.
type set struct {
	name     string
	keyLen   int
	interval bool
	verdicts bool  // elements have verdicts
	data     bool  // elements have data, for translations
	fields   []int // of a concatenation of intervals: their lengths
	elements []element
}

type element struct {
	first, last []byte // equal in exact sets; both included
	verdict     verdict
}

// link makes names into pointers, and fails on what isn't there and on jumps in circles.
func (p *Program) link() error {
	p.bases = map[Hook][]*chain{}
	p.byUse = map[string]*index{}
	for _, s := range p.sets {
		for i := range s.elements {
			if err := p.resolve(&s.elements[i].verdict); err != nil {
				return fmt.Errorf("map %s: %w", s.name, err)
			}
		}
	}
	for _, c := range p.chains {
		if c.base != nil {
			p.bases[c.base.hook] = append(p.bases[c.base.hook], c)
		}
		for _, r := range c.rules {
			for i := range r.steps {
				if err := p.linkStep(r, i); err != nil {
					return fmt.Errorf("chain %s rule %d: %w", c.name, r.number, err)
				}
			}
		}
	}
	for _, list := range p.bases {
		slices.SortFunc(list, func(a, b *chain) int {
			return cmp.Or(cmp.Compare(a.base.priority, b.base.priority),
				strings.Compare(a.name, b.name))
		})
	}
	return p.linkReads()
}

func (p *Program) resolve(v *verdict) error {
	if v.kind != jump {
		return nil
	}
	v.chain = p.chains[v.name]
	if v.chain == nil || v.chain.base != nil {
		return fmt.Errorf("jump to %s, which isn't there, or a base chain", v.name)
	}
	return nil
}

func (p *Program) linkStep(r *rule, i int) error {
	switch s := r.steps[i].(type) {
	case verdict:
		if err := p.resolve(&s); err != nil {
			return err
		}
		r.steps[i] = s
	case *lookup:
		s.set = p.sets[s.name]
		if s.set == nil {
			return fmt.Errorf("set %s isn't there", s.name)
		}
		if s.verdicts != s.set.verdicts {
			return fmt.Errorf("set %s is used as what it isn't: with verdicts, %v", s.name,
				s.verdicts)
		}
		return p.linkIndex(s)
	}
	return nil
}

// maxDepth is how deep the kernel lets jumps go (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// linkReads finds what each chain looks at, those that it jumps to included.
func (p *Program) linkReads() error {
	state := map[*chain]int{} // depth below, +1; -1 while it is being visited
	var visit func(c *chain) (int, error)
	visit = func(c *chain) (int, error) {
		if d := state[c]; d > 0 {
			return d, nil
		} else if d < 0 {
			return 0, fmt.Errorf("chain %s jumps to itself", c.name)
		}
		state[c] = -1
		depth := 0
		for s := range c.steps {
			c.reads |= readsOf(s)
			for _, to := range targets(s) {
				d, err := visit(to)
				if err != nil {
					return 0, err
				}
				depth = max(depth, d)
				c.reads |= to.reads
			}
		}
		if depth++; depth > maxDepth {
			return 0, fmt.Errorf("chain %s: jumps more than %d deep", c.name, maxDepth)
		}
		state[c] = depth
		return depth, nil
	}
	for _, c := range p.chains {
		if _, err := visit(c); err != nil {
			return err
		}
	}
	return nil
}

// targets lists where a step can jump to.
func targets(s step) []*chain {
	switch s := s.(type) {
	case verdict:
		if s.chain != nil {
			return []*chain{s.chain}
		}
	case *lookup:
		var out []*chain
		for i := range s.set.elements {
			if to := s.set.elements[i].verdict.chain; to != nil {
				out = append(out, to)
			}
		}
		return out
	}
	return nil
}
