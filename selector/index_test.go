package selector

import (
	"fmt"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

var (
	appWeb = Labels{{"app", In, []string{"web"}}}
	teamA  = Labels{{"team", In, []string{"a"}}}

	db0, web0 Number = 0, 1 // in namespace shop

	webLabels = labelled("app", "web")
	dbLabels  = labelled("app", "db")
)

// Each step is an event and the changes it must report.
func TestIndexEvents(t *testing.T) {
	t.Parallel()
	type step struct {
		event string
		do    func(*Index) []Change
		want  []Change
	}
	setPod := func(p Number, labels LabelSet) func(*Index) []Change {
		return func(ix *Index) []Change { return ix.SetPod(p, "shop", labels) }
	}
	setNamespace := func(labels LabelSet) func(*Index) []Change {
		return func(ix *Index) []Change { return ix.SetNamespace("shop", labels) }
	}
	deletePod := func(p Number) func(*Index) []Change {
		return func(ix *Index) []Change { return ix.DeletePod(p) }
	}
	deleteNamespace := func(ix *Index) []Change { return ix.DeleteNamespace("shop") }

	inShop := Selector{Namespace: "shop", Pods: appWeb}
	everywhere := Selector{}
	inTeam := Selector{Namespaces: teamA, Pods: appWeb}
	joined := func(s Selector, p Number) Change { return Change{s.Key(), p, true} }
	gone := func(s Selector, p Number) Change { return Change{s.Key(), p, false} }

	for _, tc := range []struct {
		name     string
		selector Selector
		steps    []step
	}{
		{"exact namespace, never known", inShop, []step{
			{"pod appears", setPod(web0, webLabels), []Change{joined(inShop, web0)}},
			{"other pod appears", setPod(db0, dbLabels), nil},
			{"same labels again", setPod(web0, labelled("app", "web")), nil},
			{"unrelated label", setPod(web0, labelled("app", "web", "x", "y")), nil},
			{"label changes", setPod(web0, dbLabels), []Change{gone(inShop, web0)}},
			{"label changes back", setPod(web0, webLabels), []Change{joined(inShop, web0)}},
			{"namespace becomes known", setNamespace(LabelSet{}), nil},
			{"namespace becomes unknown", deleteNamespace, nil},
			{"pod goes", deletePod(web0), []Change{gone(inShop, web0)}},
			{"pod goes again", deletePod(web0), nil},
		}},
		{"every namespace, known late", everywhere, []step{
			{"pod appears", setPod(web0, LabelSet{}), nil},
			{"namespace becomes known", setNamespace(LabelSet{}),
				[]Change{joined(everywhere, web0)}},
			{"second pod appears", setPod(db0, dbLabels), []Change{joined(everywhere, db0)}},
			{"namespace relabelled", setNamespace(labelled("team", "a")), nil},
			{"second pod goes", deletePod(db0), []Change{gone(everywhere, db0)}},
			{"namespace becomes unknown", deleteNamespace, []Change{gone(everywhere, web0)}},
			{"namespace becomes unknown again", deleteNamespace, nil},
			{"pod relabelled meanwhile", setPod(web0, webLabels), nil},
			{"namespace is back", setNamespace(LabelSet{}), []Change{joined(everywhere, web0)}},
		}},
		{"namespaces by label", inTeam, []step{
			{"namespace of another team", setNamespace(labelled("team", "b")), nil},
			{"pod appears", setPod(web0, webLabels), nil},
			{"other pod appears", setPod(db0, dbLabels), nil},
			{"namespace changes team", setNamespace(labelled("team", "a")),
				[]Change{joined(inTeam, web0)}},
			{"pod doesn't match any more", setPod(web0, dbLabels), []Change{gone(inTeam, web0)}},
			{"other pod matches", setPod(db0, webLabels), []Change{joined(inTeam, db0)}},
			{"namespace loses its label", setNamespace(LabelSet{}), []Change{gone(inTeam, db0)}},
			{"pod goes", deletePod(db0), nil},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ix := NewIndex()
			ix.Add(tc.selector)
			for _, s := range tc.steps {
				if diff := gocmp.Diff(s.want, s.do(ix)); diff != "" {
					t.Fatalf("%s: changes (-want +got):\n%s", s.event, diff)
				}
			}
		})
	}
}

func TestIndexAddFindsPods(t *testing.T) {
	t.Parallel()
	ix := NewIndex()
	ix.SetNamespace("shop", labelled("team", "a"))
	ix.SetPod(web0, "shop", webLabels)
	ix.SetPod(db0, "shop", dbLabels)
	for _, tc := range []struct {
		selector Selector
		want     []Number
	}{
		{Selector{}, []Number{db0, web0}},
		{Selector{Namespace: "shop"}, []Number{db0, web0}},
		{Selector{Namespace: "shop", Pods: appWeb}, []Number{web0}},
		{Selector{Namespace: "bank", Pods: appWeb}, nil},
		{Selector{Namespaces: teamA, Pods: Labels{{"app", Exists, nil}}}, []Number{db0, web0}},
		{Selector{Namespaces: teamA, Pods: Labels{{"app", In, []string{"db", "none", "web"}}}},
			[]Number{db0, web0}},
		{Selector{Namespaces: teamA, Pods: Labels{{"app", NotIn, []string{"web"}}}}, []Number{db0}},
		{Selector{Namespaces: teamA, Pods: Labels{{"app", In, nil}}}, nil},
		{Selector{Namespaces: Labels{{"team", DoesNotExist, nil}}}, nil},
	} {
		k := ix.Add(tc.selector)
		if diff := gocmp.Diff(tc.want, members(ix, k)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", k, diff)
		}
		if got := ix.Len(k); got != len(tc.want) {
			t.Errorf("%s: Len is %d, want %d", k, got, len(tc.want))
		}
	}
}

func TestIndexReferences(t *testing.T) {
	t.Parallel()
	ix := NewIndex()
	ix.SetPod(web0, "shop", webLabels)
	k := ix.Add(Selector{Namespace: "shop", Pods: appWeb})
	same := ix.Add(Selector{Namespace: "shop", Pods: slices.Concat(appWeb, appWeb)})
	if k != same {
		t.Fatalf("one selector, two keys: %s, %s", k, same)
	}

	ix.Remove(k)
	if !ix.Has(k) || ix.Len(k) != 1 {
		t.Fatalf("one of two references removed: Has is %v, Len is %d", ix.Has(k), ix.Len(k))
	}
	ix.Remove(k)
	if ix.Has(k) || ix.Len(k) != 0 || members(ix, k) != nil ||
		slices.Collect(ix.Selectors(web0)) != nil {
		t.Fatal("the selector is still there after its last reference")
	}
	ix.Remove(k)
	ix.Remove("no such selector")
	if got := ix.DeletePod(web0); got != nil {
		t.Fatalf("changes of a selector that isn't in use: %v", got)
	}
}

func TestIndexUnknown(t *testing.T) {
	t.Parallel()
	ix := NewIndex()
	k := ix.Add(Selector{})
	for name, got := range map[string][]Change{
		"DeletePod":       ix.DeletePod(web0),
		"DeleteNamespace": ix.DeleteNamespace("shop"),
	} {
		if got != nil {
			t.Errorf("%s of something unknown: %v", name, got)
		}
	}
	if got := slices.Collect(ix.Selectors(web0)); got != nil {
		t.Errorf("selectors of an unknown pod: %v", got)
	}
	ix.Remove(k)
	checkEmpty(t, ix)
}

// A pod's change looks at the selectors that ask for one of its labels in its namespace, and a new
// selector at the pods that may match: not at the rest.
func TestIndexLooksAtFew(t *testing.T) {
	t.Parallel()
	const others = 200
	ix := NewIndex()
	for i := range others {
		n := fmt.Sprint(i)
		labelled := func(key, value string) Labels { return Labels{{key, In, []string{value}}} }
		byName := labelled("kubernetes.io/metadata.name", "ns-"+n)
		// everyone in another namespace
		ix.Add(Selector{Namespace: "ns-" + n})
		ix.Add(Selector{Namespace: "ns-" + n, Pods: appWeb})          // same label there
		ix.Add(Selector{Namespaces: byName, Pods: appWeb})            // the same, by label
		ix.Add(Selector{Pods: labelled("app", n)})                    // another value, everywhere
		ix.Add(Selector{Pods: Labels{{"key-" + n, Exists, nil}}})     // another key, everywhere
		ix.Add(Selector{Namespace: "shop", Pods: labelled("app", n)}) // another value here
		// A label that all pods have, with one that few have.
		ix.Add(Selector{Pods: append(labelled("everyone", "yes"), labelled("rare", n)...)})
		ix.Add(Selector{Pods: append(Labels{{"everyone", Exists, nil}}, labelled("rare", n)...)})
	}
	for i := range others {
		n := fmt.Sprint(i)
		ix.SetNamespace("ns-"+n, labelled("kubernetes.io/metadata.name", "ns-"+n))
		ix.SetPod(Number(2+i), "ns-"+n, labelled("app", "web", "everyone", "yes", "rare", n))
	}
	ix.SetNamespace("shop", LabelSet{})
	ix.SetPod(web0, "shop", labelled("app", "web", "everyone", "yes"))
	ix.SetPod(db0, "shop", dbLabels)
	wanted := []Selector{{Namespace: "shop"}, {Namespace: "shop", Pods: appWeb},
		{Pods: Labels{{"rare", DoesNotExist, nil}}}}
	for _, s := range wanted {
		ix.Add(s)
	}

	visited := 0
	p := ix.pods.get(web0)
	ix.filing.each(p, p.ns.scopes, func(*entry) { visited++ })
	if visited < len(wanted) || visited > len(wanted)+2 {
		t.Errorf("%d of %d selectors looked at for a pod that %d pick", visited, len(ix.selectors),
			len(wanted))
	}

	for s, most := range map[*Selector]int{
		{Namespace: "shop"}: 2,
		{Namespace: "shop", Pods: Labels{{"app", Exists, nil}}}:                2,
		{Namespace: "shop", Pods: Labels{{"app", In, []string{"db"}}}}:         1,
		{Pods: Labels{{"app", In, []string{"db"}}}}:                            1,
		{Pods: Labels{{"rare", In, []string{"1", "2"}}, {"app", Exists, nil}}}: 2,
		{Namespaces: Labels{{"kubernetes.io/metadata.name", In, []string{"ns-1"}}},
			Pods: appWeb}: 1,
	} {
		ix.Add(*s)
		looked := 0
		for range ix.candidates(ix.selectors[s.Key()]) {
			looked++
		}
		if looked > most {
			t.Errorf("%s: %d of %d pods looked at, want %d at most", s.Key(), looked,
				ix.pods.count, most)
		}
	}
}

// checkEmpty reports what an index without content still holds.
func checkEmpty(t interface{ Errorf(string, ...any) }, ix *Index) {
	for what, n := range map[string]int{
		"selectors":  len(ix.selectors),
		"pods":       ix.pods.count,
		"namespaces": len(ix.namespaces),
		"scopes":     len(ix.scopes),
		"filing":     len(ix.filing),
		"postings":   len(ix.postings),
	} {
		if n > 0 {
			t.Errorf("%d %s left in an empty index", n, what)
		}
	}
	for i, block := range ix.pods.blocks {
		if block != nil {
			t.Errorf("block %d of pods left in an empty index", i)
		}
	}
}

func members(ix *Index, k Key) []Number { return slices.Sorted(ix.Members(k)) }
