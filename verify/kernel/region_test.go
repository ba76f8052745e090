package kernel_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/verify/kernel"
)

// TestRegionsAreSets: regions behave as the sets of points that they hold.
func TestRegionsAreSets(t *testing.T) {
	t.Parallel()
	draw := func(t *rapid.T, name string) (kernel.Region, map[uint32]bool) {
		var spans []kernel.Span
		points := map[uint32]bool{}
		for range rapid.IntRange(0, 4).Draw(t, name) {
			first := rapid.Uint32Range(0, 20).Draw(t, "first")
			last := rapid.Uint32Range(first, 20).Draw(t, "last")
			spans = append(spans, kernel.Span{First: first, Last: last})
			for i := first; i <= last; i++ {
				points[i] = true
			}
		}
		return kernel.Union(spans), points
	}
	rapid.Check(t, func(t *rapid.T) {
		a, inA := draw(t, "a")
		b, inB := draw(t, "b")
		for i := range uint32(22) {
			at := kernel.Region{{First: i, Last: i}}
			if a.Contains(at) != inA[i] || a.And(b).Contains(at) != (inA[i] && inB[i]) ||
				a.Or(b).Contains(at) != (inA[i] || inB[i]) ||
				a.Minus(b).Contains(at) != (inA[i] && !inB[i]) {
				t.Fatalf("%v and %v at %d", a, b, i)
			}
		}
		all := kernel.Everything()
		if !slices.Equal(a.Or(b), b.Or(a)) || !slices.Equal(a.Minus(b).Or(a.And(b)), a) ||
			!slices.Equal(all.Minus(all.Minus(a)), a) {
			t.Fatalf("%v and %v: not canonical", a, b)
		}
	})
}
