package link

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// thing is an Item of a kernel that is a list.
type thing struct {
	kind Kind
	name string
	is   int
}

func (t thing) Kind() Kind                { return t.kind }
func (t thing) Key() string               { return t.name }
func (t thing) Device() string            { return t.name }
func (t thing) Add() string               { return fmt.Sprintf("+%d%s=%d", t.kind, t.name, t.is) }
func (t thing) Remove() string            { return fmt.Sprintf("-%d%s=%d", t.kind, t.name, t.is) }
func (t thing) Put(*Kernel, []Item) error { return nil }
func (t thing) Drop(*Kernel) error        { return nil }

func randomThings(t *rapid.T, label string) State {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Item {
		return thing{
			kind: Kind(rapid.IntRange(0, 2).Draw(t, "kind")),
			name: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"),
			is:   rapid.IntRange(0, 1).Draw(t, "is"),
		}
	}), 0, 8).Draw(t, label)
}

func oneOfEach(s State) State {
	slices.SortFunc(s, func(a, b Item) int { return strings.Compare(a.Add(), b.Add()) })
	return slices.CompactFunc(s, func(a, b Item) bool {
		return a.Kind() == b.Kind() && a.Key() == b.Key()
	})
}

// Whatever is there, the changes lead to what is desired, each kind after those that it stands on.
func TestDiffLeadsToDesired(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		desired, actual := oneOfEach(randomThings(t, "desired")), randomThings(t, "actual")
		var now State // each thing once: there can't be two that are the same
		for _, item := range actual {
			if !slices.Contains(now, item) {
				now = append(now, item)
			}
		}
		last, removing := Kind(0), false
		for _, op := range Diff(desired, actual, nil) {
			kind := op.Now
			if op.Next != nil {
				kind = []Item{op.Next}
			}
			if op.Next == nil && !removing {
				removing, last = true, KindRoute
			}
			k := kind[0].Kind()
			if !removing && (k < last || op.Next == nil) ||
				removing && (k > last || op.Next != nil) {
				t.Fatalf("%s is out of order", op)
			}
			last = kind[0].Kind()
			for _, old := range op.Now {
				i := slices.Index(now, old)
				if i < 0 {
					t.Fatalf("%s is about what isn't there", op)
				}
				now = slices.Delete(now, i, i+1)
			}
			if op.Next != nil {
				now = append(now, op.Next)
			}
		}
		slices.SortFunc(now, func(a, b Item) int { return strings.Compare(a.Add(), b.Add()) })
		if !slices.Equal(now, desired) {
			t.Fatalf("got %v, want %v", now, desired)
		}
		if again := Diff(desired, now, nil); len(again) != 0 {
			t.Fatalf("it differs from itself: %v", again)
		}
	})
}

func TestDiffText(t *testing.T) {
	t.Parallel()
	desired := State{thing{2, "a", 1}, thing{0, "b", 1}, thing{0, "a", 1}, thing{1, "b", 1}}
	actual := State{thing{0, "a", 0}, thing{0, "a", 2}, thing{1, "b", 0}, thing{0, "c", 0},
		thing{1, "c", 0}}
	for name, c := range map[string]struct {
		group func(Item) string
		want  string
	}{
		"by kind": {nil, "-0a=0\n-0a=2\n+0a=1\n+0b=1\n+1b=1\n+2a=1\n-1c=0\n-0c=0\n"},
		"by name": {Item.Key, "-0a=0\n-0a=2\n+0a=1\n+2a=1\n+0b=1\n+1b=1\n-1c=0\n-0c=0\n"},
	} {
		if got := Commands(Diff(desired, actual, c.group)); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
	if got, want := desired.String(), "+0a=1\n+0b=1\n+1b=1\n+2a=1\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	var s State
	for i := range 12 {
		s = append(s, thing{0, fmt.Sprintf("%02d", i), 0})
	}
	got := Summary(Diff(s, nil, nil))
	if !strings.HasPrefix(got, "+000=0; +001=0; ") ||
		!strings.HasSuffix(got, "+009=0; and 2 more") {
		t.Errorf("got %q", got)
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	address := Address{Link: "a", Prefix: netip.MustParsePrefix("10.0.0.1/32")}
	if got := Of[Address](State{thing{}, address}); !slices.Equal(got, []Address{address}) {
		t.Errorf("got %v", got)
	}
}
