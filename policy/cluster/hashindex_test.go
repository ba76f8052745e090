package cluster

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// Names of one hash are told apart, also when one of them goes.
func TestNamesOfOneHash(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := map[selector.Number]policy.Key{}
		x := newHashIndex(func(n selector.Number) policy.Key { return names[n] })
		// So that their slots are at either end of the table, or in one place.
		spread := rapid.SampledFrom([]uint32{0, 1, 1 << 28, 1 << 31}).Draw(t, "spread")
		x.hash = func(k policy.Key) uint32 { return uint32(k.Name[0])*spread - 1 }
		numbers, next := map[policy.Key]selector.Number{}, selector.Number(0)
		var free []selector.Number
		anyName := rapid.Custom(func(t *rapid.T) policy.Key {
			return policy.Key{Namespace: rapid.SampledFrom([]string{"dev", "prod"}).Draw(t, "ns"),
				Name: fmt.Sprint(rapid.IntRange(0, 19).Draw(t, "name"))}
		})
		remove := func(name policy.Key) {
			n := numbers[name]
			x.remove(name)
			delete(names, n)
			delete(numbers, name)
			free = append(free, n)
		}
		addOrRemove := func(t *rapid.T) {
			name := anyName.Draw(t, "key")
			if _, known := numbers[name]; known {
				remove(name)
				return
			}
			n := next
			if last := len(free) - 1; last >= 0 { // the last that became free, as users do
				n, free = free[last], free[:last]
			} else {
				next++
			}
			names[n], numbers[name] = name, n
			x.add(name, n)
		}
		t.Repeat(map[string]func(*rapid.T){
			"again and again": func(t *rapid.T) {
				for range 5 {
					addOrRemove(t)
				}
			},
			"add or remove": addOrRemove,
			"remove most": func(t *rapid.T) {
				for len(numbers) > 2 {
					remove(rapid.SampledFrom(slices.SortedFunc(maps.Keys(numbers),
						policy.Key.Compare)).Draw(t, "goes"))
				}
			},
			"": func(t *rapid.T) {
				name := anyName.Draw(t, "asked")
				if n, ok := x.find(name); ok != (names[n] == name) {
					t.Fatalf("%v is %d (%t), of %v", name, n, ok, names)
				}
				for name, want := range numbers {
					if n, ok := x.find(name); !ok || n != want {
						t.Fatalf("%v is %d (%t), not %d", name, n, ok, want)
					}
				}
				if slots := len(x.slots); slots*3 < x.size()*4 {
					t.Fatalf("%d slots for %d names", slots, x.size())
				}
				got := slices.Sorted(x.all())
				if want := slices.Sorted(maps.Keys(names)); !slices.Equal(got, want) ||
					x.size() != len(want) {
					t.Fatalf("%v instead of %v", got, want)
				}
			},
		})
	})
}

// What many names took is given back when they go.
func TestHashIndexShrinks(t *testing.T) {
	t.Parallel()
	const names = 10_000
	key := func(n selector.Number) policy.Key { return policy.Key{Name: fmt.Sprint(n)} }
	x := newHashIndex(key)
	for n := range selector.Number(names) {
		x.add(key(n), n)
	}
	if slots := len(x.slots); slots > 2*names {
		t.Errorf("%d slots for %d names", slots, names)
	}
	for n := range selector.Number(names) {
		x.remove(key(n))
		if _, found := x.find(key(n)); found || x.size() != names-1-int(n) {
			t.Fatalf("%d: found after its removal: %t, %d left", n, found, x.size())
		}
	}
	if slots := len(x.slots); slots >= 2*fewestSlots {
		t.Errorf("%d slots for nothing", slots)
	}
}
