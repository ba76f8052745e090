package nft

import (
	"slices"
	"testing"
)

// A skipWorld is the state of a pod's chains, as far as a packet from it to one address is
// concerned. The pod asks a tier first, and then the next one, which allows by a set, and otherwise
// denies.
type skipWorld struct {
	key                           string // where the pod's key leads; empty: there is none
	guarded                       bool   // the tier drops it first
	first, second                 bool   // the tier skips the rest of its rules
	accepted                      bool   // a rule of the rest accepts
	allowsRest                    bool   // the last rule of the rest accepts, not drops
	next                          bool   // the next tier accepts
	nextDrops, baseDrops, nextAll bool   // by rules
}

var toOne = packet{modelAddr(1), modelAddr(2)}

func (w skipWorld) ruleset() *Ruleset {
	r := NewRuleset()
	src, dst := []Field{SrcAddr4}, []Field{DstAddr4}
	set := func(s Set, in bool) {
		s.Key = dst
		made := r.AddSet(&s)
		if in {
			made.Elements[AddrElement(toOne.dst)] = Verdict{}
		}
	}
	set(Set{Name: "guard", Guard: true}, w.guarded)
	set(Set{Name: "first", Skip: true}, w.first)
	set(Set{Name: "second", Skip: true}, w.second)
	set(Set{Name: "accepted"}, w.accepted)
	set(Set{Name: "next"}, w.next)
	rest := rule(drop)
	if w.allowsRest {
		rest = rule(accept)
	}
	r.AddChain(&Chain{Name: "tier", Rules: []Rule{rule(InSet{dst, "guard"}, drop),
		rule(InSet{dst, "first"}, ret), rule(InSet{dst, "second"}, ret),
		rule(InSet{dst, "accepted"}, accept), rest}})
	next := []Rule{rule(InSet{dst, "next"}, accept)}
	if w.nextAll {
		next = []Rule{rule(accept)}
	}
	if w.nextDrops {
		next = slices.Insert(next, 0, rule(drop))
	}
	r.AddChain(&Chain{Name: "next", Rules: next})
	r.AddChain(&Chain{Name: "pod", Rules: []Rule{rule(jump("tier")), rule(jump("next")),
		rule(drop)}})
	r.AddChain(&Chain{Name: "closed", Rules: []Rule{rule(drop)}})
	m := r.AddSet(&Set{Name: "pods", Key: src, Verdicts: true})
	if w.key != "" {
		m.Elements[AddrElement(toOne.src)] = JumpTo(w.key)
	}
	base := &Chain{Name: "base/1", Base: &Base{Hook: HookForward}}
	if w.baseDrops {
		base.Name, base.Rules = "base/2", []Rule{rule(MatchAddr{DstAddr4, toOne.dst}, drop)}
	}
	base.Rules = append(base.Rules, rule(Dispatch{src, "pods"}), rule(drop))
	r.AddChain(base)
	return r
}

// Every way in which a set that is skipped by can let a packet pass, by a mixture of two states
// that both deny it.
func TestNothingLeaksBySkipping(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ have, want skipWorld }{
		"a member comes, and the next tier's set loses it": {
			skipWorld{key: "pod", next: true}, skipWorld{key: "pod", first: true}},
		"a member comes, and the rest's set gets it": {
			skipWorld{key: "pod"}, skipWorld{key: "pod", first: true, accepted: true}},
		"a member comes, and a guard before it gets it": {
			skipWorld{key: "pod", next: true},
			skipWorld{key: "pod", next: true, guarded: true, first: true}},
		"a member goes, and the rest's set loses it": {
			skipWorld{key: "pod", first: true, accepted: true}, skipWorld{key: "pod"}},
		"a member goes, and the next tier's set gets it": {
			skipWorld{key: "pod", first: true}, skipWorld{key: "pod", next: true}},
		"a member moves to an earlier set": {
			skipWorld{key: "pod", second: true, allowsRest: true},
			skipWorld{key: "pod", first: true, allowsRest: true}},
		"a member moves to a later set": {
			skipWorld{key: "pod", first: true, allowsRest: true},
			skipWorld{key: "pod", second: true, allowsRest: true}},
		"a member comes, and the next tier's rules deny it": {
			skipWorld{key: "pod", nextAll: true},
			skipWorld{key: "pod", nextAll: true, first: true, nextDrops: true}},
		"a member goes, and the rest's rules deny it": {
			skipWorld{key: "pod", first: true, allowsRest: true}, skipWorld{key: "pod"}},
		"a member goes, and the next tier's rules allow it": {
			skipWorld{key: "pod", first: true, nextAll: true, nextDrops: true},
			skipWorld{key: "pod", nextAll: true}},
		"a member comes, and another base chain denies it": {
			skipWorld{key: "pod", next: true},
			skipWorld{key: "pod", next: true, first: true, baseDrops: true}},
		"a member comes, and the key leads elsewhere": {
			skipWorld{key: "pod", next: true},
			skipWorld{key: "closed", next: true, first: true}},
		"a member comes, and the key goes": {
			skipWorld{key: "pod", next: true}, skipWorld{next: true, first: true}},
		"a member goes, and the key comes": {
			skipWorld{next: true, first: true}, skipWorld{key: "pod", next: true}},
		"a member goes, and the key leads there": {
			skipWorld{key: "closed", next: true, first: true},
			skipWorld{key: "pod", next: true}},
	} {
		have, want := c.have.ruleset(), c.want.ruleset()
		if have.allowed(toOne) || want.allowed(toOne) {
			t.Errorf("%s: not denied by both states", name)
		}
		if err := leak(have, want, 100); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A new pod's key doesn't wait for the sets that get its address with it.
func TestNewKeysDontWaitForSkipping(t *testing.T) {
	t.Parallel()
	b := func(have, want skipWorld) Batch {
		return Plan(have.ruleset(), Diff(have.ruleset(), want.ruleset()))
	}
	comes := b(skipWorld{}, skipWorld{key: "pod", first: true, next: true})
	if len(comes.Widen) == 0 || len(comes.Switch) == 0 || comes.WaitBeforeWiden ||
		comes.WaitBeforeSwitch {
		t.Errorf("the key waits:\n%s", comes)
	}
	goes := b(skipWorld{first: true}, skipWorld{key: "pod", next: true})
	if len(goes.Switch) > 0 || len(goes.Narrow) == 0 {
		t.Errorf("the key doesn't wait for the member that leaves:\n%s", goes)
	}
	// Where the rules stay and no such set changes, all is as if there were none.
	other := b(skipWorld{key: "pod", first: true, next: true},
		skipWorld{key: "pod", first: true, accepted: true})
	if len(other.Widen)+len(other.Narrow) > 0 || len(other.Switch) == 0 {
		t.Errorf("another set changes in other steps:\n%s", other)
	}
}
