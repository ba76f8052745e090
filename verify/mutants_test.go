package verify_test

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
)

// mutator changes one thing of a ruleset, at random. It reports what, or nothing where that can't
// be done here.
type mutator func(r *rand.Rand, rs *nft.Ruleset) string

// pickChain picks a chain that has rules.
// pickChain picks a chain that packets can come to: a base chain, or one that something leads to.
func pickChain(r *rand.Rand, rs *nft.Ruleset) *nft.Chain {
	led := map[string]bool{}
	for _, c := range rs.Chains {
		for _, rule := range c.Rules {
			if do, is := rule.Statements[len(rule.Statements)-1].(nft.Do); is {
				led[do.Chain] = true
			}
		}
	}
	for _, s := range rs.Sets {
		for _, v := range s.Elements {
			led[v.Chain] = true
		}
	}
	var names []string
	for name, c := range rs.Chains {
		if len(c.Rules) > 0 && (c.Base != nil || led[name]) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	c := rs.Chains[names[r.IntN(len(names))]]
	c.Rules = slices.Clone(c.Rules)
	return c
}

func pickSet(r *rand.Rand, rs *nft.Ruleset, fits func(*nft.Set) bool) *nft.Set {
	var names []string
	for name, s := range rs.Sets {
		if fits(s) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return rs.Sets[names[r.IntN(len(names))]]
}

func pickElement(r *rand.Rand, s *nft.Set) nft.Element {
	var list []nft.Element
	for e := range s.Elements {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b nft.Element) int {
		return compareStrings(a.First+a.Last, b.First+b.Last)
	})
	return list[r.IntN(len(list))]
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func filled(s *nft.Set) bool { return len(s.Elements) > 0 }

// replace changes the statements of a rule.
func replace(c *nft.Chain, i int, change func(s nft.Statement) nft.Statement) bool {
	rule := c.Rules[i]
	for k, s := range rule.Statements {
		if to := change(s); to != nil {
			rule.Statements = slices.Clone(rule.Statements)
			rule.Statements[k] = to
			c.Rules[i] = rule
			return true
		}
	}
	return false
}

var mutators = map[string]mutator{
	"rule dropped": func(r *rand.Rand, rs *nft.Ruleset) string {
		c := pickChain(r, rs)
		i := r.IntN(len(c.Rules))
		c.Rules = slices.Delete(c.Rules, i, i+1)
		return c.Name
	},
	"verdict flipped": func(r *rand.Rand, rs *nft.Ruleset) string {
		c := pickChain(r, rs)
		kinds := []nft.VerdictKind{nft.Accept, nft.Drop, nft.Return}
		if replace(c, r.IntN(len(c.Rules)), func(s nft.Statement) nft.Statement {
			do, ok := s.(nft.Do)
			if !ok {
				return nil
			}
			to := kinds[r.IntN(len(kinds))]
			for to == do.Kind {
				to = kinds[r.IntN(len(kinds))]
			}
			return nft.Do{Verdict: nft.Verdict{Kind: to}}
		}) {
			return c.Name
		}
		return ""
	},
	"element missing": func(r *rand.Rand, rs *nft.Ruleset) string {
		s := pickSet(r, rs, filled)
		if s == nil {
			return ""
		}
		delete(s.Elements, pickElement(r, s))
		return s.Name
	},
	"element added": func(r *rand.Rand, rs *nft.Ruleset) string {
		s := pickSet(r, rs, filled)
		if s == nil {
			return ""
		}
		e := pickElement(r, s)
		v := s.Elements[e]
		b := []byte(e.First)
		b[r.IntN(len(b))%min(len(b), 4)]++ // the first field: an address, or a protocol
		if s.Interval && len(s.Key) == 1 {
			s.Elements[nft.Element{First: string(b), Last: string(b)}] = v
		} else if !s.Interval {
			s.Elements[nft.Element{First: string(b)}] = v
		} else {
			return ""
		}
		return s.Name
	},
	"interval moved by one": func(r *rand.Rand, rs *nft.Ruleset) string {
		s := pickSet(r, rs, func(s *nft.Set) bool { return s.Interval && filled(s) })
		if s == nil {
			return ""
		}
		e := pickElement(r, s)
		first, last := []byte(e.First), []byte(e.Last)
		if len(last) == 0 {
			last = []byte(e.First)
		}
		at := len(first) - 1
		if len(s.Key) > 1 {
			at -= 2 // a port is padded
		}
		switch r.IntN(4) {
		case 0:
			first[at]--
		case 1:
			last[at]++
		case 2:
			first[at]++
		case 3:
			last[at]--
		}
		if string(first) > string(last) {
			return ""
		}
		delete(s.Elements, e)
		s.Elements[nft.Element{First: string(first), Last: string(last)}] = nft.Verdict{}
		return s.Name
	},
	"order changed": func(r *rand.Rand, rs *nft.Ruleset) string {
		c := pickChain(r, rs)
		i, j := r.IntN(len(c.Rules)), r.IntN(len(c.Rules))
		if i == j {
			return ""
		}
		c.Rules[i], c.Rules[j] = c.Rules[j], c.Rules[i]
		return c.Name
	},
	"jump target changed": func(r *rand.Rand, rs *nft.Ruleset) string {
		c, to := pickChain(r, rs), pickChain(r, rs)
		if to.Base == nil && to != c &&
			replace(c, r.IntN(len(c.Rules)), func(s nft.Statement) nft.Statement {
				if do, ok := s.(nft.Do); ok && do.Kind == nft.Jump && do.Chain != to.Name {
					return nft.Do{Verdict: nft.JumpTo(to.Name)}
				}
				return nil
			}) {
			return c.Name
		}
		return ""
	},
	"set exchanged": func(r *rand.Rand, rs *nft.Ruleset) string {
		c := pickChain(r, rs)
		if replace(c, r.IntN(len(c.Rules)), func(s nft.Statement) nft.Statement {
			in, ok := s.(nft.InSet)
			if !ok {
				return nil
			}
			other := pickSet(r, rs, func(o *nft.Set) bool {
				return o.Name != in.Set && !o.Verdicts && o.Targets == 0 &&
					len(o.Key) == len(rs.Sets[in.Set].Key) &&
					o.Key[0].String() == rs.Sets[in.Set].Key[0].String()
			})
			if other == nil {
				return nil
			}
			in.Set = other.Name
			return in
		}) {
			return c.Name
		}
		return ""
	},
	"dispatch changed": func(r *rand.Rand, rs *nft.Ruleset) string {
		s := pickSet(r, rs, func(s *nft.Set) bool { return s.Verdicts && filled(s) })
		if s == nil {
			return ""
		}
		e, to := pickElement(r, s), pickChain(r, rs)
		verdicts := []nft.Verdict{{Kind: nft.Accept}, {Kind: nft.Drop}}
		if to.Base == nil {
			verdicts = append(verdicts, nft.JumpTo(to.Name))
		}
		v := verdicts[r.IntN(len(verdicts))]
		if s.Elements[e] == v {
			return ""
		}
		s.Elements[e] = v
		return s.Name
	},
	"port moved by one": func(r *rand.Rand, rs *nft.Ruleset) string {
		c := pickChain(r, rs)
		if replace(c, r.IntN(len(c.Rules)), func(s nft.Statement) nft.Statement {
			switch m := s.(type) {
			case nft.MatchPort:
				if r.IntN(2) == 0 && m.Last < 65535 {
					m.Last++
				} else if m.First > 0 {
					m.First--
				}
				return m
			case nft.MatchProto:
				m.Proto++
				return m
			case nft.MatchCT:
				m.State = []nft.CTState{nft.CTInvalid, nft.CTEstablished, nft.CTRelated,
					nft.CTNew}[r.IntN(4)]
				return m
			}
			return nil
		}) {
			return c.Name
		}
		return ""
	},
	"match dropped": func(r *rand.Rand, rs *nft.Ruleset) string {
		c := pickChain(r, rs)
		i := r.IntN(len(c.Rules))
		rule := c.Rules[i]
		if len(rule.Statements) < 2 {
			return ""
		}
		k := r.IntN(len(rule.Statements) - 1)
		rule.Statements = slices.Delete(slices.Clone(rule.Statements), k, k+1)
		c.Rules[i] = rule
		return c.Name
	},
	"accept inserted": func(r *rand.Rand, rs *nft.Ruleset) string {
		c := pickChain(r, rs)
		accept := nft.Rule{Statements: []nft.Statement{nft.MatchProto{Proto: policy.ProtocolTCP},
			nft.Do{Verdict: nft.Verdict{Kind: nft.Accept}}}}
		c.Rules = slices.Insert(c.Rules, r.IntN(len(c.Rules)+1), accept)
		return c.Name
	},
}

// mutantCount are the counts of a run.
type mutantCount struct {
	mu                                       sync.Mutex
	refused, differing, caught, equal, found int
}

// TestMutantsAreCaught: of random changes of the installed ruleset, every one that changes what
// becomes of any packet is found by reading the kernel back; those that change nothing are found by
// the structural comparison.
func TestMutantsAreCaught(t *testing.T) {
	t.Parallel()
	want, workers := 120, 2
	if os.Getenv("SLUICE_LONG") != "" {
		want = 2000
	}
	count := &mutantCount{}
	var all sync.WaitGroup
	for worker := range workers {
		w := &mutantWorker{t: t, count: count, want: want, seed: uint64(worker) + 1,
			k: newKernelTable(t)}
		w.check = openKernelTable(t, w.k.space)
		all.Go(w.run)
	}
	all.Wait()
	t.Logf("proof: %d mutants: %d differ, %d of them caught; %d mean the same, %d of them found "+
		"by the structural diff; %d refused by the kernel",
		count.differing+count.equal, count.differing, count.caught, count.equal, count.found,
		count.refused)
	if count.differing < want/3 {
		t.Errorf("only %d of %d mutants differ: they prove little", count.differing, want)
	}
}

type mutantWorker struct {
	t     *testing.T
	count *mutantCount
	want  int
	seed  uint64
	k     *kernelTable // installs mutants
	check *table.Table // wants the original
}

func (w *mutantWorker) run() {
	r := rand.New(rand.NewPCG(w.seed, 6))
	names := make([]string, 0, len(mutators))
	for name := range mutators {
		names = append(names, name)
	}
	slices.Sort(names)
	for example := int(w.seed); ; example += 2 {
		s := rapid.Custom(drawVerifyState).Example(example)
		if len(s.rules.Chains) < 8 {
			continue
		}
		if err := w.check.Sync(context.Background(), s.rules.Clone()); err != nil {
			w.t.Errorf("installing the original: %v", err)
			return
		}
		for range 6 { // few of each: how many differ is the cluster's doing
			if w.count.enough(w.want) || w.t.Failed() {
				return
			}
			w.try(r, s, names[r.IntN(len(names))])
		}
	}
}

// try makes one mutant and holds both sides against each other.
func (w *mutantWorker) try(r *rand.Rand, s *verifyState, name string) {
	mutant := s.rules.Clone()
	where := mutators[name](r, mutant)
	if where == "" || mutant.String() == s.rules.String() {
		return
	}
	p, err := w.k.install(mutant)
	if p == nil {
		w.count.add(func(c *mutantCount) { c.refused++ })
		return
	}
	var total int
	if err == nil {
		result, passErr := s.pass(p)
		total, err = result.Total, passErr
	}
	noticed := total > 0 || err != nil // an error is a notice, too
	structural, checkErr := w.check.Check(context.Background())
	if checkErr != nil {
		w.t.Errorf("%s in %s: reading back: %v", name, where, checkErr)
	}
	example := differ(s.rules, mutant)
	w.count.add(func(c *mutantCount) {
		if example != nil {
			c.differing++
			if noticed {
				c.caught++
			}
			return
		}
		c.equal++
		if len(structural) > 0 {
			c.found++
		}
	})
	switch {
	case example != nil && !noticed:
		w.t.Errorf("%s in %s: not caught, though it changes what becomes of %+v", name, where,
			*example)
	case example == nil && len(structural) == 0:
		w.t.Errorf("%s in %s: the structural comparison doesn't find it", name, where)
	}
}

// enough reports whether there were so many mutants, and a third of them differed; it gives up at
// twice as many.
func (c *mutantCount) enough(want int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.differing + c.equal
	return n >= want && c.differing >= want/3 || n >= 2*want
}

func (c *mutantCount) add(f func(*mutantCount)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}
