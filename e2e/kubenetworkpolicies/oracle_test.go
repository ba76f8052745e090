package kubenetworkpolicies

import (
	"maps"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestRandomClusters: over random clusters and policies of both kinds, policy and
// kube-network-policies agree on every connection, at each of its ends. SLUICE_LONG=1 draws 10,000
// clusters.
func TestRandomClusters(t *testing.T) {
	t.Parallel()
	rounds := 1
	if os.Getenv("SLUICE_LONG") != "" {
		rounds = 100
	}
	worlds, decided := 0, map[decision]int{}
	for range rounds {
		rapid.Check(t, func(t *rapid.T) {
			worlds++
			drawWorld(t).compare(t, decided)
		})
	}
	t.Logf("proof: %d clusters; decided, for each end of a connection:", worlds)
	for _, d := range slices.SortedFunc(maps.Keys(decided), decision.compare) {
		t.Logf("proof: %s: %d", d, decided[d])
	}
	for _, d := range decisions() {
		if !t.Failed() && decided[d] == 0 {
			t.Errorf("nothing was decided so: %s", d)
		}
	}
}

// compare asks both about every connection, and counts who decided.
func (w *world) compare(t *rapid.T, decided map[decision]int) {
	ours := w.ours()
	theirs, err := w.theirs()
	if err != nil {
		t.Fatal(err)
	}
	for c := range w.cells {
		got := ours.Explain(flowOf(c))
		for _, end := range ends {
			want, err := theirs.decide(c, end)
			if err != nil {
				t.Fatal(err)
			}
			if end.allows(got) != want.allowed {
				t.Fatalf("%s: kube-network-policies says %s, policy: %s", c, want, got)
			}
			decided[want]++
		}
	}
}
