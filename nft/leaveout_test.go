package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// objectsOf lists all that a ruleset consists of.
func objectsOf(r *Ruleset) []Object {
	var list []Object
	for name := range r.Chains {
		list = append(list, Object{Chain: name})
	}
	for name, s := range r.Sets {
		list = append(list, Object{Set: name})
		for e := range s.Elements {
			list = append(list, Object{Set: name, Element: e})
		}
	}
	return slices.SortedFunc(slices.Values(list), compareObjects)
}

// Whatever is left out: nothing passes that wouldn't otherwise, nothing refers
// to what isn't there, and the original is as it was.
func TestLeavingOutAllowsNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := genRuleset(t, "r")
		text := r.String()
		objects := map[Object]struct{}{}
		for _, o := range rapid.SliceOfN(rapid.SampledFrom(objectsOf(r)), 1, 3).Draw(t, "objects") {
			objects[o] = struct{}{}
		}
		out, err := reduced(r, objects)
		if r.String() != text {
			t.Fatalf("it changed\n%s\ninto\n%s", text, r)
		}
		if err != nil {
			return
		}
		if err := out.resolve(); err != nil {
			t.Fatalf("without %v: %v", objects, err)
		}
		for src := range 5 {
			for dst := range modelAddrs {
				if p := (packet{modelAddr(src), modelAddr(dst)}); out.allowed(p) && !r.allowed(p) {
					t.Fatalf("without %v, %v passes\n%s\nand before it doesn't\n%s", objects, p, out, r)
				}
			}
		}
	})
}

// node is a small ruleset in the shape that the agent gives it: two pods, the
// first with two policies.
func node() *Ruleset {
	r := NewRuleset()
	for _, name := range []string{"pods/a", "pods/b"} {
		r.AddSet(&Set{Name: name, Key: []Field{SrcAddr4}, Elements: map[Element]Verdict{
			AddrElement(addr("10.0.0.8")): {}, AddrElement(addr("10.0.0.9")): {},
		}})
	}
	r.AddSet(&Set{Name: "ports/a", Key: []Field{L4Proto, DstPort}, Interval: true, Elements: map[Element]Verdict{ProtoPortsElement(6, 80, 90): {}}})
	r.AddSet(&Set{Name: "block/b", Key: []Field{SrcAddr4}, Interval: true, Elements: map[Element]Verdict{
		RangeElement(addr("192.0.2.0"), addr("192.0.2.9")): {}, RangeElement(addr("192.0.2.20"), addr("192.0.2.29")): {},
	}})
	r.AddSet(&Set{Name: "ranges", Key: []Field{DstAddr4}, Interval: true, Guard: true})
	r.AddSet(&Set{Name: "dispatch", Key: []Field{DstAddr4}, Verdicts: true, Elements: map[Element]Verdict{
		AddrElement(addr("10.0.0.1")): JumpTo("pod/1"), AddrElement(addr("10.0.0.2")): JumpTo("pod/2"),
	}})
	src := []Field{SrcAddr4}
	r.AddChain(&Chain{Name: "policy/a", Rules: []Rule{rule(InSet{src, "pods/a"}, InSet{[]Field{L4Proto, DstPort}, "ports/a"}, accept)}})
	r.AddChain(&Chain{Name: "policy/b", Rules: []Rule{rule(InSet{src, "pods/b"}, accept), rule(InSet{src, "block/b"}, accept)}})
	r.AddChain(&Chain{Name: "profile/ab", Rules: []Rule{rule(jump("policy/a")), rule(jump("policy/b"))}})
	r.AddChain(&Chain{Name: "profile/b", Rules: []Rule{rule(jump("policy/b"))}})
	r.AddChain(&Chain{Name: "pod/1", Rules: []Rule{rule(jump("profile/ab")), rule(Count{}), rule(drop)}})
	r.AddChain(&Chain{Name: "deny/2", Rules: []Rule{rule(MatchProto{132}, drop)}})
	r.AddChain(&Chain{Name: "pod/2", Rules: []Rule{rule(jump("deny/2")), rule(jump("profile/b")), rule(Count{}), rule(drop)}})
	r.AddChain(&Chain{Name: "tunnel", Rules: []Rule{rule(MatchPort{17, 8472, 8472}, drop)}})
	r.AddChain(&Chain{Name: "ingress/1", Base: &Base{Hook: HookForward, Priority: -1}, Rules: []Rule{
		rule(jump("tunnel")), rule(Dispatch{[]Field{DstAddr4}, "dispatch"}), rule(InSet{[]Field{DstAddr4}, "ranges"}, drop),
	}})
	return r
}

// refusals are the objects of node that it can do without, and what is then
// different: lines that go (-) or come (+).
var refusals = []struct {
	object Object
	change string
}{
	{Object{Chain: "policy/a"}, `- jump policy/a; - ip saddr @pods/a meta l4proto . th dport @ports/a accept; - chain policy/a {`},
	{Object{Chain: "profile/b"}, `- jump profile/b; - jump policy/b; - chain profile/b {`},
	{Object{Chain: "pod/1"}, `- jump profile/ab; - counter; - drop; - chain pod/1 {; + 10.0.0.1 : drop; - 10.0.0.1 : jump pod/1`},
	{Object{Set: "pods/b"}, `- ip saddr @pods/b accept; - 10.0.0.8; - 10.0.0.9; - set pods/b {`},
	{Object{Set: "ports/a"}, `- ip saddr @pods/a meta l4proto . th dport @ports/a accept; - set ports/a {; - tcp . 80-90`},
	{Object{Set: "block/b", Element: RangeElement(addr("192.0.2.20"), addr("192.0.2.29"))}, `- 192.0.2.20-192.0.2.29`},
	{Object{Set: "pods/b", Element: AddrElement(addr("10.0.0.9"))}, `- 10.0.0.9`},
	{Object{Set: "dispatch", Element: AddrElement(addr("10.0.0.2"))}, `- 10.0.0.2 : jump pod/2`},
}

// count counts the telling words of a ruleset's text.
func count(r *Ruleset) map[string]int {
	words := map[string]int{}
	for _, c := range r.Chains {
		words["chain "+c.Name+" {"]++
		for _, rule := range c.Rules {
			words[rule.String()]++
		}
	}
	for _, s := range r.Sets {
		words["set "+s.Name+" {"]++
		for e, v := range s.Elements {
			words[s.elementString(e, v)]++
		}
	}
	return words
}

func changes(before, after *Ruleset) string {
	var list []string
	was, is := count(before), count(after)
	for _, w := range slices.Sorted(maps.Keys(was)) {
		if was[w] > is[w] {
			list = append(list, "- "+w)
		}
	}
	for _, w := range slices.Sorted(maps.Keys(is)) {
		if is[w] > was[w] {
			list = append(list, "+ "+w)
		}
	}
	return strings.Join(list, "; ")
}

func sortedParts(s string) string {
	return strings.Join(slices.Sorted(strings.SplitSeq(s, "; ")), "; ")
}

func TestLeaveOut(t *testing.T) {
	t.Parallel()
	for _, c := range refusals {
		out, err := reduced(node(), map[Object]struct{}{c.object: {}})
		if err != nil {
			t.Errorf("%s: %v", c.object, err)
			continue
		}
		if got := sortedParts(changes(node(), out)); got != sortedParts(c.change) {
			t.Errorf("%s:\ngot      %s\nexpected %s", c.object, got, sortedParts(c.change))
		}
	}
	for _, o := range []Object{
		{Chain: "ingress/1"}, {Chain: "tunnel"}, {Chain: "deny/2"}, {Set: "dispatch"}, {Set: "ranges"},
	} {
		if _, err := reduced(node(), map[Object]struct{}{o: {}}); err == nil {
			t.Errorf("%s was left out, though that allows more", o)
		}
	}
}

// spoiled makes the kernel refuse chosen objects.
type spoiled map[Object]bool

func (s spoiled) spoil(o Object) bool { return s[o] }

// The kernel itself refuses an object of each kind, in the first write and in
// a later one: the error names it, nothing else has changed, and without it
// the rest is written. When it isn't refused any more it comes back.
func TestRefusedObjects(t *testing.T) {
	t.Parallel()
	for _, c := range refusals {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s first=%v", c.object, first), func(t *testing.T) {
				t.Parallel()
				n := newNamespace(t)
				bad := spoiled{c.object: true}
				table := n.open(Options{Spoil: bad.spoil})
				if !first {
					mustSync(t, table, NewRuleset())
				}
				before := n.nft("-s", "list", "ruleset")
				err := table.Sync(context.Background(), node())
				var refusal *RefusedError
				if !errors.As(err, &refusal) || !errors.Is(err, ErrRefused) || !slices.Equal(refusal.Objects, []Object{c.object}) {
					t.Fatalf("Sync: %v", err)
				}
				if after := n.nft("-s", "list", "ruleset"); after != before {
					t.Errorf("the refused transaction left\n%s\nbefore\n%s", after, before)
				}
				if err := table.LeaveOut(refusal.Objects...); err != nil {
					t.Fatal(err)
				}
				mustApply(t, table, Patch{})
				mustMatch(t, table)
				want, err := reduced(node(), map[Object]struct{}{c.object: {}})
				if err != nil {
					t.Fatal(err)
				}
				check := n.open(Options{})
				check.desired = want
				mustMatch(t, check)

				// The rest goes on, by patches, and by a read-back.
				more := AddrElement(addr("10.0.0.77"))
				mustApply(t, table, Patch{Sets: map[string]*SetPatch{"pods/a": {Put: map[Element]Verdict{more: {}}}}})
				want.Sets["pods/a"].Elements[more] = Verdict{}
				mustMatch(t, check)
				if list, err := table.Repair(context.Background()); err != nil || len(list) > 0 {
					t.Errorf("Repair: %q, %v", list, err)
				}

				clear(bad)
				table.Retry()
				mustApply(t, table, Patch{})
				check.desired = node()
				check.desired.Sets["pods/a"].Elements[more] = Verdict{}
				mustMatch(t, check)
				if left := table.LeftOut(); len(left) > 0 {
					t.Errorf("left out: %v", left)
				}
			})
		}
	}
}

// A patch that changes what was left out tries it again.
func TestChangedObjectIsTriedAgain(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	bad := spoiled{{Chain: "policy/a"}: true}
	table := n.open(Options{Spoil: bad.spoil})
	if err := table.Sync(context.Background(), node()); !errors.Is(err, ErrRefused) {
		t.Fatal(err)
	}
	if err := table.LeaveOut(Object{Chain: "policy/a"}); err != nil {
		t.Fatal(err)
	}
	mustApply(t, table, Patch{})
	if left := table.LeftOut(); len(left) != 1 {
		t.Errorf("left out: %v", left)
	}
	clear(bad)
	mustApply(t, table, Patch{Chains: map[string]*Chain{"policy/a": node().Chains["policy/a"]}})
	mustMatch(t, table)
	if left := table.LeftOut(); len(left) > 0 {
		t.Errorf("left out: %v", left)
	}
	if !strings.Contains(n.nft("list", "table", "inet", TableName), "jump policy/a") {
		t.Error("it isn't back")
	}
}

// A chain that is there and whose new rules are refused goes: its old rules may
// allow what the new ones don't.
func TestRefusedRewrite(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	bad := spoiled{}
	table := n.open(Options{Spoil: bad.spoil})
	mustSync(t, table, node())
	bad[Object{Chain: "policy/b"}] = true
	narrower := &Chain{Name: "policy/b", Rules: []Rule{rule(InSet{[]Field{SrcAddr4}, "block/b"}, accept)}}
	var refusal *RefusedError
	err := table.Apply(context.Background(), Patch{
		Chains: map[string]*Chain{"policy/b": narrower},
		Sets:   map[string]*SetPatch{"pods/a": {Remove: map[Element]struct{}{AddrElement(addr("10.0.0.8")): {}}}},
	})
	if !errors.As(err, &refusal) || !slices.Equal(refusal.Objects, []Object{{Chain: "policy/b"}}) {
		t.Fatalf("Apply: %v", err)
	}
	if err := table.LeaveOut(refusal.Objects...); err != nil {
		t.Fatal(err)
	}
	mustApply(t, table, Patch{})
	out := n.nft("list", "table", "inet", TableName)
	if strings.Contains(out, "policy/b") || !strings.Contains(out, "policy/a") {
		t.Errorf("the kernel has\n%s", out)
	}
	mustMatch(t, table)
}

// All that one transaction is refused for is named at once.
func TestSeveralRefusals(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	bad := spoiled{{Chain: "policy/a"}: true, {Set: "block/b"}: true, {Set: "pods/b", Element: AddrElement(addr("10.0.0.8"))}: true}
	table := n.open(Options{Spoil: bad.spoil})
	var refusal *RefusedError
	if err := table.Sync(context.Background(), node()); !errors.As(err, &refusal) {
		t.Fatal(err)
	}
	for o := range bad {
		if !slices.Contains(refusal.Objects, o) {
			t.Errorf("%s isn't named", o)
		}
	}
	if len(refusal.Objects) != len(bad) {
		t.Errorf("named: %v", refusal.Objects)
	}
}
