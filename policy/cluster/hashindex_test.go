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
		hashes := rapid.Uint32Range(1, 3).Draw(t, "hashes")
		x.hash = func(k policy.Key) uint32 { return uint32(k.Name[0]) % hashes }
		numbers, next := map[policy.Key]selector.Number{}, selector.Number(0)
		var free []selector.Number
		anyName := rapid.Custom(func(t *rapid.T) policy.Key {
			return policy.Key{Namespace: rapid.SampledFrom([]string{"dev", "prod"}).Draw(t, "ns"),
				Name: fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "name"))}
		})
		t.Repeat(map[string]func(*rapid.T){
			"add or remove": func(t *rapid.T) {
				name := anyName.Draw(t, "key")
				if n, known := numbers[name]; known {
					x.remove(name)
					delete(names, n)
					delete(numbers, name)
					free = append(free, n)
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
			},
			"": func(t *rapid.T) {
				name := anyName.Draw(t, "asked")
				n, ok := x.find(name)
				if want, known := numbers[name]; ok != known || ok && n != want {
					t.Fatalf("%v is %d (%t), not %d (%t)", name, n, ok, want, known)
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
