package selector

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A LabelSet has the labels that it was made of, and is == to one of equal labels and to no other.
func TestLabelSet(t *testing.T) {
	t.Parallel()
	longs := []string{strings.Repeat("x", 300), strings.Repeat("y", 70_000)} // of other widths
	rapid.Check(t, func(t *rapid.T) {
		from := hostile
		from.values = append(slices.Clone(from.values), longs...)
		labels, other := drawObject(t, from), drawObject(t, from)
		set := LabelSetOf(labels)
		if got := maps.Collect(set.All()); !maps.Equal(got, labels) {
			t.Fatalf("made of %q, it has %q", labels, got)
		}
		for _, key := range from.keys {
			want, has := labels[key]
			if got, found := set.Get(key); got != want || found != has {
				t.Fatalf("%q of %q: %q, %v", key, labels, got, found)
			}
		}
		if got, want := set == LabelSetOf(other), maps.Equal(labels, other); got != want {
			t.Fatalf("%q == %q: %v, want %v", labels, other, got, want)
		}
		if set != LabelSetOf(maps.Clone(labels)) {
			t.Fatalf("%q isn't equal to itself", labels)
		}
	})
}

// labelled has keys and values in turn.
func labelled(words ...string) LabelSet {
	labels := map[string]string{}
	for pair := range slices.Chunk(words, 2) {
		labels[pair[0]] = pair[1]
	}
	return LabelSetOf(labels)
}
