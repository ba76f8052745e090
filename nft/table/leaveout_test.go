package table

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/nfttest"
)

// node is a small ruleset in the shape that the agent gives it: two pods, the first with two
// policies.
func node() *nft.Ruleset {
	r := nft.NewRuleset()
	for _, name := range []string{"pods/a", "pods/b"} {
		r.AddSet(&nft.Set{Name: name, Key: []nft.Field{nft.SrcAddr4},
			Elements: map[nft.Element]nft.Verdict{
				nft.AddrElement(addr("10.0.0.8")): {}, nft.AddrElement(addr("10.0.0.9")): {},
			}})
	}
	r.AddSet(&nft.Set{Name: "ports/a", Key: []nft.Field{nft.DstPort, nft.L4Proto}, Interval: true,
		Elements: map[nft.Element]nft.Verdict{nft.PortsElement(6, 80, 90): {}}})
	r.AddSet(&nft.Set{Name: "block/b", Key: []nft.Field{nft.SrcAddr4}, Interval: true,
		Elements: map[nft.Element]nft.Verdict{
			nft.RangeElement(addr("192.0.2.0"), addr("192.0.2.9")):   {},
			nft.RangeElement(addr("192.0.2.20"), addr("192.0.2.29")): {},
		}})
	r.AddSet(&nft.Set{Name: "ranges", Key: []nft.Field{nft.DstAddr4}, Interval: true, Guard: true})
	r.AddSet(&nft.Set{Name: "dispatch", Key: []nft.Field{nft.DstAddr4}, Verdicts: true,
		Elements: map[nft.Element]nft.Verdict{
			nft.AddrElement(addr("10.0.0.1")): nft.JumpTo("pod/1"),
			nft.AddrElement(addr("10.0.0.2")): nft.JumpTo("pod/2"),
		}})
	src := []nft.Field{nft.SrcAddr4}
	r.AddChain(&nft.Chain{Name: "policy/a",
		Rules: []nft.Rule{rule(nft.InSet{Fields: src, Set: "pods/a"},
			nft.InSet{Fields: []nft.Field{nft.DstPort, nft.L4Proto}, Set: "ports/a"}, accept)}})
	r.AddChain(&nft.Chain{Name: "policy/b",
		Rules: []nft.Rule{rule(nft.InSet{Fields: src, Set: "pods/b"}, accept),
			rule(nft.InSet{Fields: src, Set: "block/b"}, accept)}})
	r.AddChain(&nft.Chain{Name: "profile/ab",
		Rules: []nft.Rule{rule(jump("policy/a")), rule(jump("policy/b"))}})
	r.AddChain(&nft.Chain{Name: "profile/b", Rules: []nft.Rule{rule(jump("policy/b"))}})
	r.AddChain(&nft.Chain{Name: "pod/1",
		Rules: []nft.Rule{rule(jump("profile/ab")), rule(nft.Count{}), rule(drop)}})
	r.AddChain(&nft.Chain{Name: "deny/2",
		Rules: []nft.Rule{rule(nft.MatchProto{Proto: 132}, drop)}})
	r.AddChain(&nft.Chain{Name: "pod/2",
		Rules: []nft.Rule{rule(jump("deny/2")), rule(jump("profile/b")), rule(nft.Count{}),
			rule(drop)}})
	r.AddChain(&nft.Chain{Name: "tunnel",
		Rules: []nft.Rule{rule(nft.MatchPort{Proto: 17, First: 8472, Last: 8472}, drop)}})
	r.AddChain(&nft.Chain{Name: "ingress/1", Base: &nft.Base{Hook: nft.HookForward, Priority: -1},
		Rules: []nft.Rule{
			rule(jump("tunnel")),
			rule(nft.Dispatch{Fields: []nft.Field{nft.DstAddr4}, Map: "dispatch"}),
			rule(nft.InSet{Fields: []nft.Field{nft.DstAddr4}, Set: "ranges"}, drop),
		}})
	return r
}

// refusals are the objects of node that it can do without, and what is then different: lines that
// go (-) or come (+).
var refusals = []struct {
	object nft.Object
	change string
}{
	{nft.Object{Chain: "policy/a"},
		`- jump policy/a; - ip saddr @pods/a th dport . meta l4proto @ports/a accept; - chain policy/a {`},
	{nft.Object{Chain: "profile/b"}, `- jump profile/b; - jump policy/b; - chain profile/b {`},
	{nft.Object{Chain: "pod/1"},
		`- jump profile/ab; - counter; - drop; - chain pod/1 {; + 10.0.0.1 : drop; - 10.0.0.1 : jump pod/1`},
	{nft.Object{Chain: "deny/2"},
		`- meta l4proto sctp drop; - chain deny/2 {; - jump deny/2; - jump profile/b; - counter; - drop; - chain pod/2 {; + 10.0.0.2 : drop; - 10.0.0.2 : jump pod/2`},
	{nft.Object{Set: "pods/b"},
		`- ip saddr @pods/b accept; - 10.0.0.8; - 10.0.0.9; - set pods/b {`},
	{nft.Object{Set: "ports/a"},
		`- ip saddr @pods/a th dport . meta l4proto @ports/a accept; - set ports/a {; - 80-90 . tcp`},
	{nft.Object{Set: "block/b", Element: nft.RangeElement(addr("192.0.2.20"), addr("192.0.2.29"))},
		`- 192.0.2.20-192.0.2.29`},
	{nft.Object{Set: "pods/b", Element: nft.AddrElement(addr("10.0.0.9"))}, `- 10.0.0.9`},
	{nft.Object{Set: "dispatch", Element: nft.AddrElement(addr("10.0.0.2"))},
		`- 10.0.0.2 : jump pod/2`},
}

// count counts the telling words of a ruleset's text.
func count(r *nft.Ruleset) map[string]int {
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
			words[s.ElementString(e, v)]++
		}
	}
	return words
}

func changes(before, after *nft.Ruleset) string {
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
		out, err := nft.Without(node(), map[nft.Object]struct{}{c.object: {}})
		if err != nil {
			t.Errorf("%s: %v", c.object, err)
			continue
		}
		if got := sortedParts(changes(node(), out)); got != sortedParts(c.change) {
			t.Errorf("%s:\ngot      %s\nexpected %s", c.object, got, sortedParts(c.change))
		}
	}
	for _, o := range []nft.Object{
		{Chain: "ingress/1"}, {Chain: "tunnel"}, {Set: "dispatch"}, {Set: "ranges"},
	} {
		if _, err := nft.Without(node(), map[nft.Object]struct{}{o: {}}); err == nil {
			t.Errorf("%s was left out, though that allows more", o)
		}
	}
}

// spoiled makes the kernel refuse chosen objects.
type spoiled map[nft.Object]bool

func (s spoiled) spoil(o nft.Object) bool { return s[o] }

// The kernel itself refuses an object of each kind, in the first write and in a later one: the
// error names it, nothing else has changed, and without it the rest is written. When it isn't
// refused any more it comes back.
func TestRefusedObjects(t *testing.T) {
	t.Parallel()
	for _, c := range refusals {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s first=%v", c.object, first), func(t *testing.T) {
				t.Parallel()
				n := newNamespace(t)
				bad := spoiled{c.object: true}
				table := n.openOver(nfttest.Refusing(bad.spoil), Options{})
				if !first {
					mustSync(t, table, nft.NewRuleset())
				}
				before := n.Nft("-s", "list", "ruleset")
				err := table.Sync(context.Background(), node())
				var refusal *nft.RefusedError
				if !errors.As(err, &refusal) || !errors.Is(err, nft.ErrRefused) ||
					!slices.Equal(refusal.Objects, []nft.Object{c.object}) {
					t.Fatalf("Sync: %v", err)
				}
				if after := n.Nft("-s", "list", "ruleset"); after != before {
					t.Errorf("the refused transaction left\n%s\nbefore\n%s", after, before)
				}
				if err := table.LeaveOut(refusal.Objects...); err != nil {
					t.Fatal(err)
				}
				mustApply(t, table, nft.Patch{})
				mustMatch(t, table)
				want, err := nft.Without(node(), map[nft.Object]struct{}{c.object: {}})
				if err != nil {
					t.Fatal(err)
				}
				check := n.open(Options{})
				check.desired = want
				mustMatch(t, check)

				// The rest goes on, by patches, and by a read-back.
				more := nft.AddrElement(addr("10.0.0.77"))
				mustApply(t, table,
					nft.Patch{Sets: map[string]*nft.SetPatch{"pods/a": {
						Put: map[nft.Element]nft.Verdict{more: {}}}}})
				want.Sets["pods/a"].Elements[more] = nft.Verdict{}
				mustMatch(t, check)
				if list, err := table.Repair(context.Background()); err != nil || len(list) > 0 {
					t.Errorf("Repair: %q, %v", list, err)
				}

				clear(bad)
				table.Retry()
				mustApply(t, table, nft.Patch{})
				check.desired = node()
				check.desired.Sets["pods/a"].Elements[more] = nft.Verdict{}
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
	table := n.openOver(nfttest.Refusing(bad.spoil), Options{})
	if err := table.Sync(context.Background(), node()); !errors.Is(err, nft.ErrRefused) {
		t.Fatal(err)
	}
	if err := table.LeaveOut(nft.Object{Chain: "policy/a"}); err != nil {
		t.Fatal(err)
	}
	mustApply(t, table, nft.Patch{})
	if left := table.LeftOut(); len(left) != 1 {
		t.Errorf("left out: %v", left)
	}
	clear(bad)
	mustApply(t, table,
		nft.Patch{Chains: map[string]*nft.Chain{"policy/a": node().Chains["policy/a"]}})
	mustMatch(t, table)
	if left := table.LeftOut(); len(left) > 0 {
		t.Errorf("left out: %v", left)
	}
	if !strings.Contains(n.Nft("list", "table", "inet", nft.TableName), "jump policy/a") {
		t.Error("it isn't back")
	}
}

// A chain that is there and whose new rules are refused goes: its old rules may allow what the new
// ones don't.
func TestRefusedRewrite(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	bad := spoiled{}
	table := n.openOver(nfttest.Refusing(bad.spoil), Options{})
	mustSync(t, table, node())
	bad[nft.Object{Chain: "policy/b"}] = true
	narrower := &nft.Chain{Name: "policy/b",
		Rules: []nft.Rule{rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr4}, Set: "block/b"},
			accept)}}
	var refusal *nft.RefusedError
	err := table.Apply(context.Background(), nft.Patch{
		Chains: map[string]*nft.Chain{"policy/b": narrower},
		Sets: map[string]*nft.SetPatch{"pods/a": {
			Remove: map[nft.Element]struct{}{nft.AddrElement(addr("10.0.0.8")): {}}}},
	})
	if !errors.As(err, &refusal) ||
		!slices.Equal(refusal.Objects, []nft.Object{{Chain: "policy/b"}}) {
		t.Fatalf("Apply: %v", err)
	}
	if err := table.LeaveOut(refusal.Objects...); err != nil {
		t.Fatal(err)
	}
	mustApply(t, table, nft.Patch{})
	out := n.Nft("list", "table", "inet", nft.TableName)
	if strings.Contains(out, "policy/b") || !strings.Contains(out, "policy/a") {
		t.Errorf("the kernel has\n%s", out)
	}
	mustMatch(t, table)
}

// All that one transaction is refused for is named at once.
func TestSeveralRefusals(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	bad := spoiled{{Chain: "policy/a"}: true, {Set: "block/b"}: true,
		{Set: "pods/b", Element: nft.AddrElement(addr("10.0.0.8"))}: true}
	table := n.openOver(nfttest.Refusing(bad.spoil), Options{})
	var refusal *nft.RefusedError
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
