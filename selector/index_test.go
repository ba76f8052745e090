package selector

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
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

// After any events, in any order, the index holds what Selector.Matches says of the present state,
// its changes replay to the same, and once all is gone nothing is left.
func TestIndexAgainstBruteForce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newModel()
		t.Repeat(map[string]func(*rapid.T){
			"Add":    m.add,
			"Remove": m.removeSelector,
			"SetPod": m.setPod,
			"SetManyPods": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "pods") {
					m.setPod(t)
				}
			},
			"DeletePod":       m.deletePod,
			"SetNamespace":    m.setNamespace,
			"DeleteNamespace": m.deleteNamespace,
			"":                m.check,
		})
		m.clear(t)
	})
}

// model is the state by which an index is judged.
type model struct {
	ix         *Index
	selectors  map[Key]Selector
	refs       map[Key]int
	pods       map[Number]LabelSet
	homes      map[Number]string // the namespaces of pods
	namespaces map[string]LabelSet
	replayed   map[Key]map[Number]bool // members by the changes
}

func newModel() *model {
	return &model{
		ix:         NewIndex(),
		selectors:  make(map[Key]Selector),
		refs:       make(map[Key]int),
		pods:       make(map[Number]LabelSet),
		homes:      make(map[Number]string),
		namespaces: make(map[string]LabelSet),
		replayed:   make(map[Key]map[Number]bool),
	}
}

// Pods concentrate in the first namespace, so that sets grow large there.
var namespaceNames = rapid.SampledFrom([]string{"a", "a", "a", "a", "b", "c"})

func drawPod(t *rapid.T) Number { return Number(rapid.IntRange(0, 89).Draw(t, "pod")) }

func (m *model) add(t *rapid.T) {
	s := Selector{
		Namespace: rapid.SampledFrom([]string{"", "", "a", "b", "unheard-of"}).Draw(t, "namespace"),
		Pods:      drawLabels(t, plain, "pods"),
	}
	if s.Namespace == "" || rapid.Bool().Draw(t, "ignored namespaces") {
		s.Namespaces = drawLabels(t, plain, "namespaces")
	}
	k := m.ix.Add(s)
	if k != s.Key() {
		t.Fatalf("Add returned %s, the key is %s", k, s.Key())
	}
	m.selectors[k] = s
	m.refs[k]++
	if m.refs[k] == 1 {
		m.replayed[k] = make(map[Number]bool)
		for p := range m.ix.Members(k) {
			m.replayed[k][p] = true
		}
	}
}

func (m *model) removeSelector(t *rapid.T) {
	if len(m.selectors) == 0 {
		m.ix.Remove("namespaces all: all")
		return
	}
	k := rapid.SampledFrom(slices.Sorted(maps.Keys(m.selectors))).Draw(t, "key")
	m.remove(k)
}

func (m *model) remove(k Key) {
	m.ix.Remove(k)
	if m.refs[k]--; m.refs[k] == 0 {
		delete(m.refs, k)
		delete(m.selectors, k)
		delete(m.replayed, k)
	}
}

func (m *model) setPod(t *rapid.T) {
	p, labels := drawPod(t), LabelSetOf(drawObject(t, plain))
	if _, known := m.pods[p]; !known { // another pod can have had the number, anywhere
		m.homes[p] = namespaceNames.Draw(t, "namespace")
	}
	m.pods[p] = labels
	m.replay(t, m.ix.SetPod(p, m.homes[p], labels))
}

func (m *model) deletePod(t *rapid.T) {
	p := drawPod(t)
	delete(m.pods, p)
	m.replay(t, m.ix.DeletePod(p))
}

func (m *model) setNamespace(t *rapid.T) {
	name := namespaceNames.Draw(t, "namespace")
	labels := LabelSetOf(drawObject(t, plain)) // known, also with no labels
	m.namespaces[name] = labels
	m.replay(t, m.ix.SetNamespace(name, labels))
}

func (m *model) deleteNamespace(t *rapid.T) {
	name := namespaceNames.Draw(t, "namespace")
	delete(m.namespaces, name)
	m.replay(t, m.ix.DeleteNamespace(name))
}

func (m *model) namespace(name string) Namespace {
	labels, known := m.namespaces[name]
	return Namespace{Name: name, Known: known, Labels: labels}
}

// replay applies reported changes. Each must change something.
func (m *model) replay(t *rapid.T, changes []Change) {
	for _, c := range changes {
		members, found := m.replayed[c.Selector]
		if !found {
			t.Fatalf("change of a selector that isn't in use: %v", c)
		}
		if members[c.Pod] == c.Member {
			t.Fatalf("reported, but nothing changed: %v", c)
		}
		if c.Member {
			members[c.Pod] = true
		} else {
			delete(members, c.Pod)
		}
	}
}

func (m *model) check(t *rapid.T) {
	picking := make(map[Number][]Key)
	for _, k := range slices.Sorted(maps.Keys(m.selectors)) {
		var want []Number
		for p, labels := range m.pods {
			if m.selectors[k].Matches(m.namespace(m.homes[p]), labels) {
				want = append(want, p)
				picking[p] = append(picking[p], k)
			}
		}
		slices.Sort(want)
		if diff := gocmp.Diff(want, members(m.ix, k)); diff != "" {
			t.Fatalf("members of %s (-brute force +index):\n%s", k, diff)
		}
		replayed := slices.Collect(maps.Keys(m.replayed[k]))
		slices.Sort(replayed)
		if diff := gocmp.Diff(want, replayed); diff != "" {
			t.Fatalf("changes of %s (-brute force +replayed):\n%s", k, diff)
		}
		if got := m.ix.Len(k); got != len(want) || !m.ix.Has(k) {
			t.Fatalf("%s: Len is %d, want %d; Has is %v", k, got, len(want), m.ix.Has(k))
		}
	}
	for p := range m.pods {
		if diff := gocmp.Diff(picking[p], slices.Sorted(m.ix.Selectors(p))); diff != "" {
			t.Fatalf("selectors of %v (-brute force +index):\n%s", p, diff)
		}
	}
}

// clear removes everything and checks that the index forgot it.
func (m *model) clear(t *rapid.T) {
	for p := range m.pods {
		m.replay(t, m.ix.DeletePod(p))
	}
	for name := range m.namespaces {
		m.replay(t, m.ix.DeleteNamespace(name))
	}
	for k, refs := range m.refs {
		if left := len(m.replayed[k]); left > 0 {
			t.Fatalf("%s: %d members without pods", k, left)
		}
		for range refs {
			m.remove(k)
		}
	}
	checkEmpty(t, m.ix)
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
