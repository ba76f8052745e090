package selector

import (
	"maps"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

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
