package selector

import (
	"fmt"
	"os"
	"runtime"
	"testing"
)

// The cluster of the benchmarks: namespaces of 100 pods, which are workloads of five pods each, and
// a few hundred selectors of the usual kinds.
const (
	benchPodsPerNamespace = 100
	benchReplicas         = 5
	benchTeams            = 20
)

func benchLabels(i int, version string) LabelSet {
	workload := i / benchReplicas
	return LabelSetOf(map[string]string{
		"app":                          fmt.Sprint("app-", workload%200),
		"app.kubernetes.io/managed-by": "Helm",
		"pod-template-hash":            fmt.Sprintf("%x", 1<<20+workload),
		"role":                         []string{"web", "api", "db", "cache", "job"}[workload%5],
		"version":                      version,
	})
}

func benchNamespaceOf(i int) string { return fmt.Sprint("ns-", i/benchPodsPerNamespace) }

func benchNamespace(n int, team string) LabelSet {
	return LabelSetOf(
		map[string]string{"kubernetes.io/metadata.name": fmt.Sprint("ns-", n), "team": team})
}

func benchSelectors() []Selector {
	is := func(key, value string) Requirement { return Requirement{key, In, []string{value}} }
	monitoring := Labels{is("kubernetes.io/metadata.name", "ns-0")}
	out := []Selector{
		{Namespaces: monitoring},
		{Namespaces: monitoring, Pods: Labels{is("role", "job")}},
		{Pods: Labels{{"quarantine", Exists, nil}}},
		{Pods: Labels{is("app.kubernetes.io/managed-by", "Helm"), is("app", "app-7")}},
	}
	for n := range 10 { // per namespace: its default, and its workloads
		name := fmt.Sprint("ns-", n)
		out = append(out, Selector{Namespace: name})
		for w := range 20 {
			out = append(out,
				Selector{Namespace: name, Pods: Labels{is("app", fmt.Sprint("app-", n*20+w))}})
		}
	}
	for team := range benchTeams { // per team: all its pods, and its roles
		namespaces := Labels{is("team", fmt.Sprint("team-", team))}
		out = append(out, Selector{Namespaces: namespaces})
		for _, role := range []string{"web", "api", "db"} {
			out = append(out, Selector{Namespaces: namespaces,
				Pods: Labels{is("role", role), {"version", NotIn, []string{"v0"}}}})
		}
	}
	for app := range 100 { // applications wherever they run
		out = append(out, Selector{Pods: Labels{is("app", fmt.Sprint("app-", app))}})
	}
	return out
}

func benchIndex(pods int) *Index {
	ix := NewIndex()
	for n := range pods / benchPodsPerNamespace {
		ix.SetNamespace(fmt.Sprint("ns-", n), benchNamespace(n, fmt.Sprint("team-", n%benchTeams)))
	}
	for _, s := range benchSelectors() {
		ix.Add(s)
	}
	for i := range pods {
		ix.SetPod(Number(i), benchNamespaceOf(i), benchLabels(i, "v1"))
	}
	return ix
}

// benchSizes runs one operation at two sizes of the cluster, with SLUICE_LONG=1 at a third, and
// reports how its time compares with that at 1,000 pods.
func benchSizes(b *testing.B, prepare func(*Index) (operation func())) {
	b.Helper()
	var base float64
	sizes := []int{1_000, 10_000}
	if os.Getenv("SLUICE_LONG") != "" {
		sizes = append(sizes, 100_000) // seconds each, to fill it
	}
	for _, pods := range sizes {
		b.Run(fmt.Sprint("pods=", pods), func(b *testing.B) {
			operation := prepare(benchIndex(pods))
			runtime.GC()
			b.ReportAllocs()
			for b.Loop() {
				operation()
			}
			perOp := float64(b.Elapsed()) / float64(b.N)
			if pods == 1_000 {
				base = perOp
			}
			if base > 0 { // the first size may have been filtered out
				b.ReportMetric(perOp/base, "x1000pods")
			}
		})
	}
}

// One pod takes another label and back, which one of its selectors looks at.
func BenchmarkSetPod(b *testing.B) {
	benchSizes(b, func(ix *Index) func() { return benchRelabel(b, ix) })
}

func benchRelabel(b *testing.B, ix *Index) func() {
	b.Helper()
	versions := []LabelSet{benchLabels(0, "v0"), benchLabels(0, "v1")}
	i := 0
	return func() {
		if len(ix.SetPod(0, "ns-0", versions[i%2])) != 1 {
			b.Fatal("the version doesn't decide one membership")
		}
		i++
	}
}

// One of a pod's labels takes another value and back, at two numbers of labels: what that costs in
// comparison with 100 labels. Kubernetes doesn't limit how many a pod has.
func BenchmarkSetPodManyLabels(b *testing.B) {
	var base float64
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint("labels=", n), func(b *testing.B) {
			labels := map[string]string{}
			for i := range n {
				labels[fmt.Sprint("key-", i)] = "v0"
			}
			versions := []LabelSet{LabelSetOf(labels)}
			labels["key-0"] = "v1"
			versions = append(versions, LabelSetOf(labels))
			ix := NewIndex()
			ix.Add(Selector{Namespace: "ns", Pods: Labels{{"key-0", In, []string{"v1"}}}})
			ix.SetPod(0, "ns", versions[0])
			i := 0
			for b.Loop() {
				i++
				if len(ix.SetPod(0, "ns", versions[i%2])) != 1 {
					b.Fatal("the label doesn't decide one membership")
				}
			}
			perOp := float64(b.Elapsed()) / float64(b.N)
			if base == 0 {
				base = perOp
			}
			b.ReportMetric(perOp/base, "x100labels")
		})
	}
}

// The same among 500 namespace selectors that pick the pod's namespace, each for the pods of
// another application.
func BenchmarkSetPodManyNamespaceSelectors(b *testing.B) {
	benchSizes(b, func(ix *Index) func() {
		for i := range 500 {
			n := fmt.Sprint("other-", i)
			ix.Add(Selector{Namespaces: Labels{{"team", NotIn, []string{n}}},
				Pods: Labels{{"app", In, []string{n}}}})
		}
		return benchRelabel(b, ix)
	})
}

// One pod comes and goes.
func BenchmarkNewPod(b *testing.B) {
	benchSizes(b, func(ix *Index) func() {
		n := Number(ix.pods.count)
		labels := benchLabels(100, "v1")
		return func() {
			if len(ix.SetPod(n, "ns-1", labels)) == 0 || len(ix.DeletePod(n)) == 0 {
				b.Fatal("no selector picks the pod")
			}
		}
	})
}

// A namespace of 100 pods moves from one team to another.
func BenchmarkSetNamespace(b *testing.B) {
	benchSizes(b, func(ix *Index) func() {
		teams := []LabelSet{benchNamespace(1, "team-2"), benchNamespace(1, "team-1")}
		i := 0
		return func() {
			if len(ix.SetNamespace("ns-1", teams[i%2])) < 2*benchPodsPerNamespace {
				b.Fatal("the team doesn't decide the memberships")
			}
			i++
		}
	})
}

// A selector for one workload in one namespace comes and goes.
func BenchmarkAddInNamespace(b *testing.B) {
	benchAdd(b, Selector{Namespace: "ns-1", Pods: Labels{{"role", In, []string{"web", "api"}}}})
}

// A selector for one workload in all namespaces comes and goes.
func BenchmarkAddEverywhere(b *testing.B) {
	hash, _ := benchLabels(0, "").Get("pod-template-hash")
	benchAdd(b,
		Selector{Pods: Labels{{"pod-template-hash", In, []string{hash}}, {"role", Exists, nil}}})
}

// A selector whose namespaces no other selector asks for comes and goes. It judges every namespace,
// of which there is one per 100 pods.
func BenchmarkAddNewNamespaces(b *testing.B) {
	benchAdd(b, Selector{
		Namespaces: Labels{{"team", NotIn, []string{"team-1"}}},
		Pods: Labels{{"app", In, []string{"app-1"}}, {"role", Exists, nil},
			{"version", Exists, nil}},
	})
}

func benchAdd(b *testing.B, s Selector) {
	b.Helper()
	benchSizes(b, func(ix *Index) func() {
		return func() {
			k := ix.Add(s)
			if ix.Len(k) == 0 {
				b.Fatal("the selector picks nothing")
			}
			ix.Remove(k)
		}
	})
}

// The memory of the largest cluster, without the label sets, which the caller has too, and the time
// to fill it.
func BenchmarkFill(b *testing.B) {
	const pods = 150_000
	labels := make([]LabelSet, pods)
	for i := range pods {
		labels[i] = benchLabels(i, "v1")
	}
	var before, after runtime.MemStats
	var filled struct{ *Index }
	for b.Loop() {
		filled.Index = nil
		runtime.GC()
		runtime.ReadMemStats(&before)
		ix := benchIndex(0)
		for i := range pods {
			if i%benchPodsPerNamespace == 0 {
				n := i / benchPodsPerNamespace
				ix.SetNamespace(benchNamespaceOf(i),
					benchNamespace(n, fmt.Sprint("team-", n%benchTeams)))
			}
			ix.SetPod(Number(i), benchNamespaceOf(i), labels[i])
		}
		filled.Index = ix
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/pods, "B/pod")
	runtime.KeepAlive(filled)
	runtime.KeepAlive(labels)
}
