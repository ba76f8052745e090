package nft

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const modelAddrs = 7

func modelAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }

// genRuleset draws a small ruleset in the shape that this package's promise is about: what a packet
// finds no key for in a dispatch, and what comes back from it, is dropped; sets are matched to
// accept, guards to drop. Names and definitions come from a small pool, so that two rulesets share
// many.
func genRuleset(t *rapid.T, label string) *Ruleset {
	g := generator{t: t, label: label, r: NewRuleset()}
	g.all()
	return g.r
}

type generator struct {
	*rapid.T
	t     *rapid.T
	label string
	r     *Ruleset

	plain, guards, skips, policies, tiers, pods []string
}

func (g *generator) all() {
	g.sets()
	g.chains()
	g.maps()
	g.base()
	g.nat()
	if err := g.r.resolve(); err != nil {
		g.t.Fatalf("the generator made nonsense: %v", err)
	}
}

func (g *generator) int(what string, from, to int) int {
	return rapid.IntRange(from, to).Draw(g.t, g.label+" "+what)
}

func (g *generator) oneIn(n int, what string) bool { return g.int(what, 1, n) == 1 }

func (g *generator) sets() {
	for _, s := range []Set{
		{Name: "s0"}, {Name: "s1"}, {Name: "r0", Interval: true}, {Name: "r1", Interval: true},
		{Name: "g0", Guard: true}, {Name: "gr0", Guard: true, Interval: true},
		{Name: "k0", Skip: true}, {Name: "k1", Skip: true},
	} {
		if g.oneIn(4, "no set "+s.Name) {
			continue
		}
		set := s
		set.Key = []Field{DstAddr4}
		g.members(&set)
		g.r.AddSet(&set)
		switch {
		case s.Guard:
			g.guards = append(g.guards, s.Name)
		case s.Skip:
			g.skips = append(g.skips, s.Name)
		default:
			g.plain = append(g.plain, s.Name)
		}
	}
}

// members draws the elements of a set.
func (g *generator) members(s *Set) {
	s.Elements = map[Element]Verdict{}
	for i := 0; i < modelAddrs; i++ {
		if g.oneIn(2, fmt.Sprintf("%s skips %d", s.Name, i)) {
			continue
		}
		if !s.Interval {
			s.Elements[AddrElement(modelAddr(i))] = Verdict{}
			continue
		}
		last := g.int("range", i, modelAddrs-1)
		s.Elements[RangeElement(modelAddr(i), modelAddr(last))] = Verdict{}
		i = last
	}
}

func (g *generator) pick(list []string, what string) string {
	return list[g.int(what, 0, len(list)-1)]
}

// step draws a rule of a chain that sits below a dispatch.
func (g *generator) step(later []string) Rule {
	dst := []Field{DstAddr4}
	switch kind := g.int("rule", 0, 6); {
	case kind <= 1 && len(g.plain) > 0:
		s := InSet{dst, g.pick(g.plain, "set")}
		if g.oneIn(3, "and") {
			return rule(s, InSet{dst, g.pick(g.plain, "set")}, accept)
		}
		return rule(s, accept)
	case kind == 2 && len(g.guards) > 0:
		return rule(InSet{dst, g.pick(g.guards, "guard")}, drop)
	case kind <= 4 && len(later) > 0:
		to := jump(g.pick(later, "jump"))
		if g.oneIn(3, "for some") {
			return rule(g.matchDst(), to)
		}
		return rule(to)
	}
	verdicts := []Statement{accept, drop, ret}
	return rule(g.matchDst(), verdicts[g.int("verdict", 0, 2)])
}

func (g *generator) matchDst() MatchAddr {
	return MatchAddr{DstAddr4, modelAddr(g.int("dst", 0, modelAddrs-1))}
}

func (g *generator) chains() {
	for _, group := range []struct {
		prefix string
		n      int
		list   *[]string
	}{{"policy", 3, &g.policies}, {"tier", 2, &g.tiers}, {"pod", 3, &g.pods}} {
		for i := group.n - 1; i >= 0; i-- {
			name := fmt.Sprintf("%s%d", group.prefix, i)
			if g.oneIn(4, "no chain "+name) {
				continue
			}
			c := &Chain{Name: name}
			for range g.int("rules", 0, 3) {
				switch {
				case group.prefix == "tier" && len(g.skips) > 0 && g.oneIn(2, "skip"):
					c.Rules = append(c.Rules,
						rule(InSet{[]Field{DstAddr4}, g.pick(g.skips, "skip")}, ret))
				case group.prefix == "pod":
					c.Rules = append(c.Rules, g.step(slices.Concat(g.tiers, g.policies)))
				default:
					c.Rules = append(c.Rules, g.step(g.policies))
				}
			}
			if group.prefix == "pod" {
				ends := [][]Rule{nil, {rule(drop)}, {rule(accept)}}
				c.Rules = append(c.Rules, ends[g.int("end", 0, 2)]...)
			}
			g.r.AddChain(c)
			*group.list = append(*group.list, name)
		}
	}
}

// maps draws two verdict maps whose keys are different packets.
func (g *generator) maps() {
	for i, name := range []string{"m0", "m1"} {
		g.keys(g.r.AddSet(&Set{Name: name, Key: []Field{SrcAddr4}, Verdicts: true}), i)
	}
}

// keys draws the keys of a verdict map: those with even addresses, or those with odd ones.
func (g *generator) keys(m *Set, first int) {
	m.Elements = map[Element]Verdict{}
	for key := first; key < 4; key += 2 {
		e := AddrElement(modelAddr(key))
		switch kind := g.int("key", 0, 6); {
		case kind == 0:
		case kind == 1:
			m.Elements[e] = Verdict{Kind: Accept}
		case kind == 2:
			m.Elements[e] = Verdict{Kind: Drop}
		case kind == 3 && len(g.policies) > 0:
			m.Elements[e] = JumpTo(g.pick(g.policies, "target"))
		case len(g.pods) > 0:
			m.Elements[e] = JumpTo(g.pick(g.pods, "target"))
		}
	}
}

func (g *generator) base() {
	src := []Field{SrcAddr4}
	c := &Chain{Name: fmt.Sprintf("base/%d", g.int("version", 1, 2)),
		Base: &Base{Hook: HookForward}}
	for range g.int("rules before", 0, 2) {
		c.Rules = append(c.Rules, g.step(g.policies))
	}
	c.Rules = append(c.Rules, rule(Dispatch{src, "m0"}))
	if g.oneIn(3, "between") {
		c.Rules = append(c.Rules, rule(g.matchDst(), drop))
	}
	c.Rules = append(c.Rules, rule(Dispatch{src, "m1"}), rule(drop))
	g.r.AddChain(c)
}

// mixed keeps parts of the old ruleset in the new one: most patches are small.
func mixed(t *rapid.T, have, want *Ruleset) *Ruleset {
	mix := want.Clone()
	same := rapid.IntRange(0, 4).Draw(t, "same of 4")
	keep := func(what string) bool { return rapid.IntRange(1, 4).Draw(t, "keep "+what) <= same }
	for _, name := range slices.Sorted(maps.Keys(have.Sets)) {
		if keep(name) {
			mix.AddSet(have.Sets[name].clone())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.Chains)) {
		if have.Chains[name].Base == nil && keep(name) {
			mix.AddChain(have.Chains[name].clone())
		}
	}
	if mix.resolve() != nil {
		return want
	}
	return mix
}

// No packet that both the old and the new state deny passes at any time, for each generation of its
// rules and of its lookups; the kernel takes every transaction; and the end is what was wanted.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	batches := 0
	rapid.Check(t, func(t *rapid.T) {
		batches++
		have := genRuleset(t, "have")
		want := mixed(t, have, genRuleset(t, "want"))
		if err := leak(have, want, rapid.IntRange(1, 6).Draw(t, "messages")); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("proof: no packet of any generation leaks in %d batches", batches)
}

// The same where the rules stay, and only elements change. There is no fence then, and often no
// wait.
func TestNothingLeaksWhileElementsChange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		g := generator{t: t, label: "have", r: NewRuleset()}
		g.all()
		have := g.r
		g.label, g.r = "want", have.Clone()
		for _, name := range slices.Sorted(maps.Keys(have.Sets)) {
			switch s := g.r.Sets[name]; {
			case g.oneIn(3, "keep "+name), s.Targets != 0:
			case s.Verdicts:
				g.keys(s, int(name[1]-'0'))
			default:
				g.members(s)
			}
		}
		if err := leak(have, g.r, rapid.IntRange(1, 6).Draw(t, "messages")); err != nil {
			t.Fatal(err)
		}
	})
}

// TestMain makes more random rulesets in the long form: some leaks take thousands to be met.
func TestMain(m *testing.M) {
	if os.Getenv("SLUICE_LONG") != "" {
		if err := flag.Set("rapid.checks", "3000"); err != nil {
			panic(err)
		}
	}
	flag.Parse() // what is given by hand counts
	os.Exit(m.Run())
}

func leak(have, want *Ruleset, most int) error {
	batch := Plan(have, Diff(have, want))
	h, err := carryOutModel(have, batch, most)
	if err != nil {
		return fmt.Errorf("the kernel would refuse: %w\n%s\n%s", err, have, batch)
	}
	if end := h.states[len(h.states)-1]; end.String() != want.String() {
		return fmt.Errorf("the end is\n%s\nnot\n%s\nafter\n%s", end, want, batch)
	}
	for src := range 5 {
		for dst := range modelAddrs {
			p := packet{modelAddr(src), modelAddr(dst)}
			if have.allowed(p) || want.allowed(p) {
				continue
			}
			for entry := range h.states {
				if h.hook(p, entry) {
					return fmt.Errorf("%v passes, entering at %d\nhave %s\nbatch %s\nwant %s", p,
						entry, have, batch, want)
				}
			}
		}
	}
	if err := leakTranslated(h, have, want); err != nil {
		return fmt.Errorf("%w\nhave %s\nbatch %s\nwant %s", err, have, batch, want)
	}
	return nil
}

// A new shape of the base chain meets changed rules that the old one doesn't, while a key changes,
// too: drawn at random too rarely.
func TestNothingLeaksRoundANewBaseChain(t *testing.T) {
	t.Parallel()
	src := []Field{SrcAddr4}
	made := func(base string, key string, w Statement, before ...Rule) *Ruleset {
		r := NewRuleset()
		r.AddChain(&Chain{Name: "a", Rules: []Rule{rule(drop)}})
		r.AddChain(&Chain{Name: "b", Rules: []Rule{rule(accept)}})
		r.AddChain(&Chain{Name: "w", Rules: []Rule{rule(w)}})
		r.AddSet(&Set{Name: "m", Key: src, Verdicts: true}).
			Elements[AddrElement(modelAddr(1))] = JumpTo(key)
		r.AddChain(&Chain{Name: base, Base: &Base{Hook: HookForward},
			Rules: append(before, rule(Dispatch{src, "m"}), rule(drop))})
		return r
	}
	err := leak(made("base/1", "a", ret), made("base/2", "b", drop, rule(jump("w"))), 100)
	if err != nil {
		t.Error(err)
	}
}

// The model itself can see a leak: everything in one transaction has one.
func TestTheModelSeesLeaks(t *testing.T) {
	t.Parallel()
	have, want := NewRuleset(), NewRuleset()
	dst := []Field{DstAddr4}
	for _, r := range []*Ruleset{have, want} {
		r.AddSet(&Set{Name: "s", Key: dst})
	}
	base := &Base{Hook: HookForward}
	have.AddChain(&Chain{Name: "base", Base: base,
		Rules: []Rule{rule(InSet{dst, "s"}, accept), rule(drop)}})
	want.AddChain(&Chain{Name: "base", Base: base, Rules: []Rule{rule(drop)}})
	want.Sets["s"].Elements[AddrElement(modelAddr(1))] = Verdict{}

	p := packet{modelAddr(0), modelAddr(1)}
	if have.allowed(p) || want.allowed(p) {
		t.Fatal("both states deny the packet")
	}
	if h := (history{states: []*Ruleset{have, want}}); !h.hook(p, 0) {
		t.Error("the old rule and the new element let it pass, but the model doesn't")
	}
	if err := leak(have, want, 100); err != nil {
		t.Error(err)
	}
}

// Objects redefined by hand can be far from what is wanted: sets of another kind, base chains that
// are regular ones or sit elsewhere. The kernel still takes every transaction, and the end is what
// is wanted.
func TestRedefinitionsConverge(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		have, want := genRuleset(t, "have"), genRuleset(t, "want")
		distort(t, have)
		most := rapid.IntRange(1, 6).Draw(t, "messages")
		for range 2 {
			batch := Plan(have, Diff(have, want))
			h, err := carryOutModel(have, batch, most)
			if err != nil {
				t.Fatalf("the kernel would refuse: %v\n%s\n%s", err, have, batch)
			}
			have = h.states[len(h.states)-1]
			if !batch.Twins {
				break
			}
		}
		if have.String() != want.String() {
			t.Fatalf("the end is\n%s\nnot\n%s", have, want)
		}
	})
}

// distort redefines objects, as far as the references to them allow.
func distort(t *rapid.T, r *Ruleset) {
	for _, name := range slices.Sorted(maps.Keys(r.Sets)) {
		s := r.Sets[name]
		if rapid.IntRange(0, 2).Draw(t, "redefine "+name) > 0 {
			continue
		}
		if s.Targets != 0 {
			s.Targets = DstAddr6
			continue
		}
		s.Key = []Field{DstAddr6}
		for e, v := range s.Elements {
			delete(s.Elements, e)
			s.Elements[Element{First: strings.Repeat(e.First, 4),
				Last: strings.Repeat(e.Last, 4)}] = v
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Chains)) {
		c := r.Chains[name]
		switch rapid.IntRange(0, 5).Draw(t, "redefine "+name) {
		case 0:
			if c.Base != nil {
				c.Base = &Base{Hook: HookInput}
			}
		case 1:
			if c.Base != nil {
				c.Base = nil
				r.AddChain(&Chain{Name: "refers", Rules: []Rule{rule(jump(name))}})
				r.AddSet(&Set{Name: "leads", Key: []Field{SrcAddr4}, Verdicts: true}).
					Elements[AddrElement(modelAddr(1))] = JumpTo(name)
			}
		case 2:
			if c.Base == nil {
				c.Base = &Base{Hook: HookOutput}
				unrefer(r, name)
			}
		}
	}
}

// unrefer takes away what refers to a chain: nothing can jump to a base chain.
func unrefer(r *Ruleset, name string) {
	for _, c := range r.Chains {
		c.Rules = slices.DeleteFunc(c.Rules, func(r Rule) bool {
			d, ok := r.Statements[len(r.Statements)-1].(Do)
			return ok && d.Chain == name
		})
	}
	for _, s := range r.Sets {
		maps.DeleteFunc(s.Elements, func(_ Element, v Verdict) bool { return v.Chain == name })
	}
}
