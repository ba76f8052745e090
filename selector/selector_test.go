package selector

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSelectorMatches(t *testing.T) {
	t.Parallel()
	var (
		web     = Labels{{"app", In, []string{"web"}}}
		teamA   = Labels{{"team", In, []string{"a"}}}
		notTeam = Labels{{"team", DoesNotExist, nil}}
		pod     = labelled("app", "web")
		shop    = Namespace{"shop", true, labelled("team", "a")}
		bare    = Namespace{"shop", true, LabelSet{}}
		unknown = Namespace{Name: "shop"}
	)
	for _, tc := range []struct {
		name      string
		selector  Selector
		namespace Namespace
		pod       LabelSet
		want      bool
	}{
		{"everything", Selector{}, shop, pod, true},
		{"everything, unlabelled", Selector{}, bare, LabelSet{}, true},
		{"everything, namespace unknown", Selector{}, unknown, pod, false},
		{"exact namespace", Selector{Namespace: "shop"}, shop, pod, true},
		{"exact namespace, unknown", Selector{Namespace: "shop"}, unknown, pod, true},
		{"other namespace", Selector{Namespace: "bank"}, shop, pod, false},
		{"exact namespace ignores Namespaces", Selector{Namespace: "shop", Namespaces: notTeam},
			shop, pod, true},
		{"other namespace ignores Namespaces", Selector{Namespace: "bank", Namespaces: teamA}, shop,
			pod, false},
		{"exact namespace and pods", Selector{Namespace: "shop", Pods: web}, unknown, pod, true},
		{"exact namespace, other pods", Selector{Namespace: "shop", Pods: web}, unknown, LabelSet{},
			false},
		{"namespaces by label", Selector{Namespaces: teamA}, shop, pod, true},
		{"namespaces by other label", Selector{Namespaces: teamA}, bare, pod, false},
		{"namespaces without a label", Selector{Namespaces: notTeam}, bare, pod, true},
		{"namespaces without a label, unknown", Selector{Namespaces: notTeam}, unknown, pod, false},
		{"namespaces and pods", Selector{Namespaces: teamA, Pods: web}, shop, pod, true},
		{"namespaces but not pods", Selector{Namespaces: teamA, Pods: web}, shop, LabelSet{},
			false},
		{"pods but not namespaces", Selector{Namespaces: teamA, Pods: web}, bare, pod, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := tc.selector.Matches(tc.namespace, tc.pod); got != tc.want {
				t.Errorf("%s matches: %v, want %v", tc.selector.Key(), got, tc.want)
			}
		})
	}
}

func TestSelectorKey(t *testing.T) {
	t.Parallel()
	web := Labels{{"app", In, []string{"web"}}}
	for _, tc := range []struct {
		selector Selector
		want     Key
	}{
		{Selector{}, "namespaces all: all"},
		{Selector{Namespace: "shop"}, "namespace shop: all"},
		{Selector{Namespace: "shop", Namespaces: web}, "namespace shop: all"},
		{Selector{Namespace: "all", Pods: web}, `namespace "all": app=web`},
		{Selector{Namespaces: Labels{{"team", In, []string{"b", "a"}}}, Pods: web},
			"namespaces team in (a, b): app=web"},
	} {
		if got := tc.selector.Key(); got != tc.want {
			t.Errorf("%#v:\n got %s\nwant %s", tc.selector, got, tc.want)
		}
	}
}

// The key can be read back into the canonical selector, so no two canonical selectors share a key.
func TestKeyIsInjective(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := Selector{
			Namespace: rapid.SampledFrom(append([]string{"", ""}, hostile.keys...)).
				Draw(t, "namespace"),
			Namespaces: drawLabels(t, hostile, "namespaces"),
			Pods:       drawLabels(t, hostile, "pods"),
		}
		want := Selector{Namespace: s.Namespace, Pods: s.Pods.Canonical()}
		if s.Namespace == "" {
			want.Namespaces = s.Namespaces.Canonical()
		}
		got, err := readKey(s.Key())
		if err != nil {
			t.Fatalf("reading %s: %v", s.Key(), err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s reads as another selector (-want +got):\n%s", s.Key(), diff)
		}
		if s.Key() != got.Key() {
			t.Fatalf("the canonical selector has another key: %s, %s", s.Key(), got.Key())
		}
	})
}

// readKey is the inverse of Selector.Key. It panics on text that isn't a key, but for what is left
// over at the end.
func readKey(k Key) (Selector, error) {
	r := &reader{rest: string(k)}
	var s Selector
	if r.skip("namespace ") {
		s.Namespace = r.word()
	} else if r.skip("namespaces ") {
		s.Namespaces = r.labels()
	}
	if !r.skip(": ") {
		return s, fmt.Errorf("no colon at %q", r.rest)
	}
	s.Pods = r.labels()
	if r.rest != "" {
		return s, fmt.Errorf("left over: %q", r.rest)
	}
	return s, nil
}

type reader struct{ rest string }

func (r *reader) skip(prefix string) bool {
	rest, found := strings.CutPrefix(r.rest, prefix)
	r.rest = rest
	return found
}

func (r *reader) word() string {
	if strings.HasPrefix(r.rest, `"`) {
		quoted, err := strconv.QuotedPrefix(r.rest)
		if err != nil {
			panic(err)
		}
		r.rest = r.rest[len(quoted):]
		s, err := strconv.Unquote(quoted)
		if err != nil {
			panic(err)
		}
		return s
	}
	n := 0
	for n < len(r.rest) && isBare(r.rest[n]) {
		n++
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *reader) labels() Labels {
	if r.skip("all") {
		return nil
	}
	l := Labels{r.requirement()}
	for r.skip(", ") {
		l = append(l, r.requirement())
	}
	return l
}

func (r *reader) requirement() Requirement {
	if r.skip("has ") {
		return Requirement{Key: r.word(), Op: Exists}
	}
	if r.skip("!") {
		return Requirement{Key: r.word(), Op: DoesNotExist}
	}
	q := Requirement{Key: r.word()}
	switch {
	case r.skip("="):
		q.Op, q.Values = In, []string{r.word()}
		return q
	case r.skip(" in "):
		q.Op = In
	case r.skip(" notin "):
		q.Op = NotIn
	case r.skip(" "):
		q.Op = Op(r.word())
		r.skip(" ")
	}
	if r.skip("()") {
		return q
	}
	for sep := "("; r.skip(sep); sep = ", " {
		q.Values = append(q.Values, r.word())
	}
	r.skip(")")
	return q
}
