package selector

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Beyond maxFew and back, a podSet is a set.
func TestPodSet(t *testing.T) {
	t.Parallel()
	universe := make([]Number, 2*maxFew)
	for i := range universe {
		universe[i] = Number(i * 5000) // of more than one of a bitmap's containers
	}
	rapid.Check(t, func(t *rapid.T) {
		var set podSet
		want := make(map[Number]bool)
		add := func(p Number) {
			if !want[p] {
				set.add(p)
				want[p] = true
			}
		}
		remove := func(p Number) {
			set.remove(p)
			delete(want, p)
		}
		draw := func(t *rapid.T) Number { return rapid.SampledFrom(universe).Draw(t, "pod") }
		t.Repeat(map[string]func(*rapid.T){
			"add":    func(t *rapid.T) { add(draw(t)) },
			"remove": func(t *rapid.T) { remove(draw(t)) },
			"fill": func(*rapid.T) {
				for _, p := range universe {
					add(p)
				}
			},
			"clear": func(*rapid.T) {
				for _, p := range universe {
					remove(p)
				}
			},
			"": func(t *rapid.T) {
				if set.len() != len(want) {
					t.Fatalf("len is %d, want %d", set.len(), len(want))
				}
				all := slices.Collect(set.all())
				if len(all) != len(want) {
					t.Fatalf("all yields %d pods, want %d", len(all), len(want))
				}
				for _, p := range all {
					if !want[p] {
						t.Fatal("all yields a pod that isn't in the set")
					}
				}
				for _, p := range universe {
					if set.has(p) != want[p] {
						t.Fatalf("has is %v, want %v", set.has(p), want[p])
					}
				}
				if set.many != nil && len(want) == 0 {
					t.Fatal("an empty set keeps its bitmap")
				}
			},
		})
		for p := range maps.Clone(want) {
			remove(p)
		}
		if set.len() != 0 {
			t.Fatalf("%d pods left", set.len())
		}
	})
}
