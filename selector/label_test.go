package selector

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestLabelsMatches(t *testing.T) {
	t.Parallel()
	web := labelled("app", "web", "empty", "")
	for _, tc := range []struct {
		name   string
		labels Labels
		object LabelSet
		want   bool
	}{
		{"empty selects a labelled object", Labels{}, web, true},
		{"nil selects an unlabelled object", nil, LabelSet{}, true},

		{"In with the value", Labels{{"app", In, []string{"db", "web"}}}, web, true},
		{"In with other values", Labels{{"app", In, []string{"db"}}}, web, false},
		{"In on an absent key", Labels{{"tier", In, []string{"web"}}}, web, false},
		{"In without values", Labels{{"app", In, nil}}, web, false},
		{"In with the empty value", Labels{{"empty", In, []string{""}}}, web, true},
		{"In with the empty value on an absent key", Labels{{"tier", In, []string{""}}},
			web, false},
		{"In with the empty value on an unlabelled object", Labels{{"tier", In, []string{""}}},
			LabelSet{}, false},

		{"NotIn with the value", Labels{{"app", NotIn, []string{"db", "web"}}}, web, false},
		{"NotIn with other values", Labels{{"app", NotIn, []string{"db"}}}, web, true},
		{"NotIn on an absent key", Labels{{"tier", NotIn, []string{"web"}}}, web, true},
		{"NotIn with the empty value", Labels{{"empty", NotIn, []string{""}}}, web, false},
		{"NotIn with the empty value on an absent key", Labels{{"tier", NotIn, []string{""}}},
			web, true},
		{"NotIn without values", Labels{{"app", NotIn, nil}}, web, true},

		{"Exists", Labels{{"app", Exists, nil}}, web, true},
		{"Exists with an empty value", Labels{{"empty", Exists, nil}}, web, true},
		{"Exists on an absent key", Labels{{"tier", Exists, nil}}, web, false},
		{"Exists ignores values", Labels{{"app", Exists, []string{"db"}}}, web, true},

		{"DoesNotExist", Labels{{"app", DoesNotExist, nil}}, web, false},
		{"DoesNotExist with an empty value", Labels{{"empty", DoesNotExist, nil}}, web, false},
		{"DoesNotExist on an absent key", Labels{{"tier", DoesNotExist, nil}}, web, true},
		{"DoesNotExist ignores values", Labels{{"app", DoesNotExist, []string{"db"}}}, web, false},

		{"all must hold", Labels{{"app", In, []string{"web"}}, {"tier", Exists, nil}}, web, false},
		{"all hold", Labels{{"app", In, []string{"web"}}, {"tier", DoesNotExist, nil}}, web, true},
		{"contradiction", Labels{{"app", Exists, nil}, {"app", DoesNotExist, nil}}, web, false},
		{"keys and values are case-sensitive", Labels{{"App", Exists, nil}}, web, false},

		{"unknown operator", Labels{{"app", "Near", []string{"web"}}}, web, false},
		{"no operator", Labels{{"app", "", []string{"web"}}}, web, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := tc.labels.Matches(tc.object); got != tc.want {
				t.Errorf("(%v).Matches(%v) = %v, want %v", tc.labels, tc.object, got, tc.want)
			}
			if got := tc.labels.Canonical().Matches(tc.object); got != tc.want {
				t.Errorf("canonical (%v).Matches(%v) = %v, want %v", tc.labels, tc.object, got,
					tc.want)
			}
		})
	}
}

func TestLabelsString(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		labels Labels
		want   string
	}{
		{nil, "all"},
		{Labels{{"app", In, []string{"web"}}}, "app=web"},
		{Labels{{"tier", In, []string{"b", "a", "b"}}}, "tier in (a, b)"},
		{Labels{{"y", NotIn, []string{"z"}}}, "y notin (z)"},
		{Labels{{"k", Exists, []string{"ignored"}}}, "has k"},
		{Labels{{"x", DoesNotExist, nil}}, "!x"},
		{Labels{{"x", DoesNotExist, nil}, {"app", In, []string{"web"}},
			{"x", DoesNotExist, []string{}}}, "app=web, !x"},
		{Labels{{"kubernetes.io/metadata.name", In, []string{"kube-system"}}},
			"kubernetes.io/metadata.name=kube-system"},
		{Labels{{"k", In, nil}}, "k in ()"},
		{Labels{{"k", In, []string{""}}}, `k=""`},
		{Labels{{"has", In, []string{"all"}}}, `"has"="all"`},
		{Labels{{"a, b", In, []string{"c=d"}}}, `"a, b"="c=d"`},
		{Labels{{"k", "Near", []string{"a"}}}, `k "Near" (a)`},
	} {
		if got := tc.labels.String(); got != tc.want {
			t.Errorf("%#v:\n got %s\nwant %s", tc.labels, got, tc.want)
		}
	}
}

func TestCanonical(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		labels := drawLabels(t, hostile, "labels")
		before := cloneLabels(labels)
		canonical := labels.Canonical()

		if diff := cmp.Diff(before, labels); diff != "" {
			t.Fatalf("Canonical modified its receiver (-before +after):\n%s", diff)
		}
		if diff := cmp.Diff(canonical, canonical.Canonical()); diff != "" {
			t.Fatalf("Canonical of a canonical selector differs (-once +twice):\n%s", diff)
		}
		object := LabelSetOf(drawObject(t, hostile))
		if got, want := canonical.Matches(object), labels.Matches(object); got != want {
			t.Fatalf("canonical selector matches %v: %v, the original: %v", object, got, want)
		}
		other := cloneLabels(shuffle(t, labels))
		for i := range other {
			other[i].Values = shuffle(t, other[i].Values)
		}
		if diff := cmp.Diff(canonical, other.Canonical()); diff != "" {
			t.Fatalf("the order of the spelling shows (-original +shuffled):\n%s", diff)
		}
		if got, want := other.String(), labels.String(); got != want {
			t.Fatalf("the order of the spelling shows: %s and %s", want, got)
		}
	})
}

// alphabet is what random labels are made of.
type alphabet struct{ keys, values []string }

// plain makes selectors and objects that often agree.
var plain = alphabet{
	keys:   []string{"app", "tier", "x"},
	values: []string{"", "a", "b"},
}

// hostile has what could confuse the text form.
var hostile = alphabet{
	keys: []string{
		"", "a", "in", "has", "all", "notin", "!a", "has a", "a in (b)", `"a"`, `a"`, `\`, "a, b",
		"a=b", ": ", "\xff", "�",
		"in namespace b", "é", "\n", "a/b.c-d_e",
	},
	values: []string{"", "a", "b", "a, b", "in", "all", ")", "a)", "(", `"`, `\"`, `"a"`, ": all",
		", !a", "\xff", "�", "\x00", "=b"},
}

func drawObject(t *rapid.T, from alphabet) map[string]string {
	return rapid.MapOfN(rapid.SampledFrom(from.keys), rapid.SampledFrom(from.values), 0,
		len(plain.keys)).Draw(t, "object")
}

func drawLabels(t *rapid.T, from alphabet, name string) Labels {
	ops := []Op{In, NotIn, Exists, DoesNotExist, In, NotIn, Exists, DoesNotExist, "Near", ""}
	requirement := rapid.Custom(func(t *rapid.T) Requirement {
		return Requirement{
			Key:    rapid.SampledFrom(from.keys).Draw(t, "key"),
			Op:     rapid.SampledFrom(ops).Draw(t, "op"),
			Values: rapid.SliceOfN(rapid.SampledFrom(from.values), 0, 3).Draw(t, "values"),
		}
	})
	return rapid.SliceOfN(requirement, 0, 3).Draw(t, name)
}

func cloneLabels(l Labels) Labels {
	out := slices.Clone(l)
	for i := range out {
		out[i].Values = slices.Clone(out[i].Values)
	}
	return out
}

// shuffle returns the elements in a random order, some of them twice.
func shuffle[T any](t *rapid.T, in []T) []T {
	if len(in) == 0 {
		return in
	}
	again := rapid.SliceOfN(rapid.SampledFrom(in), 0, 2).Draw(t, "again")
	return rapid.Permutation(slices.Concat(in, again)).Draw(t, "order")
}
