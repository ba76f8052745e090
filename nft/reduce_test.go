package nft

import (
	"slices"
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
	return slices.SortedFunc(slices.Values(list), CompareObjects)
}

// For each object that is left out: no packet passes that wouldn't otherwise, no reference is left
// without its object, and the original is as it was.
func TestLeavingOutAllowsNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := genRuleset(t, "r")
		text := r.String()
		objects := map[Object]struct{}{}
		for _, o := range rapid.SliceOfN(rapid.SampledFrom(objectsOf(r)), 1, 3).Draw(t, "objects") {
			objects[o] = struct{}{}
		}
		out, err := Without(r, objects)
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
					t.Fatalf("without %v, %v passes\n%s\nand before it doesn't\n%s", objects,
						p, out, r)
				}
			}
		}
	})
}

// What only accepts is left out alone. Without what denies, or skips, more would be allowed: so the
// pod's key drops.
func TestLeavingOutWhatDenies(t *testing.T) {
	t.Parallel()
	one, passed := AddrElement(toOne.dst), RangeElement(toOne.dst, toOne.dst)
	for o, closes := range map[Object]bool{
		{Set: "accepted"}: false, {Set: "accepted", Element: one}: false, {Set: "next"}: false,
		{Chain: "next"}: false,
		{Set: "guard"}:  true, {Set: "guard", Element: one}: true, {Set: "first"}: true,
		{Set: "first", Element: one}: true, {Chain: "tier"}: true, {Chain: "pod"}: true,
		{Set: "denied"}: true, {Set: "denied", Element: one}: true,
		{Set: "passed"}: true, {Set: "passed", Element: passed}: true,
	} {
		r := skipWorld{key: "pod", guarded: true, first: true, accepted: true, next: true}.ruleset()
		// Sets that never change, of ports or ranges, are neither guards nor to skip by.
		r.AddSet(&Set{Name: "denied", Key: []Field{DstAddr4}}).Elements[one] = Verdict{}
		r.AddSet(&Set{Name: "passed", Key: []Field{DstAddr4}, Interval: true}).
			Elements[passed] = Verdict{}
		r.Chains["tier"].Rules = slices.Insert(r.Chains["tier"].Rules, 0,
			rule(InSet{[]Field{DstAddr4}, "denied"}, drop),
			rule(InSet{[]Field{DstAddr4}, "passed"}, ret))
		out, err := Without(r, map[Object]struct{}{o: {}})
		if err != nil {
			t.Errorf("%s: %v", o, err)
			continue
		}
		drops := out.Sets["pods"].Elements[AddrElement(toOne.src)] == Verdict{Kind: Drop}
		if drops != closes {
			t.Errorf("without %s the pod drops: %t\n%s", o, drops, out)
		}
		key := Object{Set: "pods", Element: AddrElement(toOne.src)}
		if got := Closed(r, out); slices.Contains(got, key) != closes {
			t.Errorf("without %s, closed are %v", o, got)
		}
	}
}
