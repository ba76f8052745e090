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
