package bench

import (
	"cmp"
	"maps"
	"slices"

	"github.com/google/pprof/profile"
)

// mostSites is how many functions reportHeap names.
const mostSites = 12

// reportHeap says by which functions the memory was asked for that the agent has now. It comes
// after the memory was reported: garbage is collected first.
func (s *scale) reportHeap(when string) {
	s.b.Helper()
	answer, err := s.metrics.get("/debug/pprof/heap?gc=1")
	must(s.b, err)
	heap, err := profile.ParseData(answer)
	must(s.b, err)
	inUse := slices.IndexFunc(heap.SampleType,
		func(t *profile.ValueType) bool { return t.Type == "inuse_space" })
	if inUse < 0 {
		s.b.Fatalf("a heap profile without inuse_space: %v", heap.SampleType)
	}
	bytes, total := map[string]int64{}, int64(0)
	for _, sample := range heap.Sample {
		n := sample.Value[inUse]
		total += n
		if len(sample.Location) > 0 && len(sample.Location[0].Line) > 0 {
			bytes[sample.Location[0].Line[0].Function.Name] += n
		}
	}
	sites := slices.SortedFunc(maps.Keys(bytes),
		func(a, b string) int { return cmp.Compare(bytes[b], bytes[a]) })
	s.sayf("%s, what is on the heap: %d MiB", when, total>>20)
	for _, site := range sites[:min(mostSites, len(sites))] {
		s.sayf("  %6.1f MiB by %s", float64(bytes[site])/(1<<20), site)
	}
}
