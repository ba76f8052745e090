package controllers

import (
	"fmt"
	"testing"
	"time"
)

// tell takes what there is to tell until a moment, and returns when each was
// told.
func (b *eventBook) tell(from time.Time, until time.Duration) map[string]time.Duration {
	out := map[string]time.Duration{}
	for now := from; now.Sub(from) <= until; {
		e, wait, ok := b.next(now)
		switch {
		case ok:
			out[e.note] = now.Sub(from)
		case wait == 0:
			return out
		default:
			now = now.Add(wait)
		}
	}
	return out
}

func (b *eventBook) add(now time.Time, source, about, note string) bool {
	return b.put(now, source, eventKey{object: about}, notice{note: note})
}

// TestAFloodOfEventsCostsItselfAlone: while one namespace has far more to be
// told than its share, those of others and of the node are told at once.
func TestAFloodOfEventsCostsItselfAlone(t *testing.T) {
	t.Parallel()
	now, b := time.Unix(0, 0), newEventBook()
	taken := 0
	for i := range 10_000 {
		if name := fmt.Sprint("flood", i); b.add(now, "tenant", name, name) {
			taken++
		}
	}
	if taken != mostWaiting {
		t.Errorf("%d Events of one namespace wait, want %d", taken, mostWaiting)
	}
	for i := range 20 {
		name := fmt.Sprint("other", i)
		b.add(now, name, name, name)
	}
	b.add(now, nodeSource, "node", "node")
	told := b.tell(now, time.Hour)
	if len(told) != taken+21 {
		t.Errorf("%d Events were told, want %d", len(told), taken+21)
	}
	if told["node"] != 0 {
		t.Errorf("the node's Event waited for %v", told["node"])
	}
	for i := range 20 {
		if waited := told[fmt.Sprint("other", i)]; waited > 11*time.Second {
			t.Errorf("the Event of another namespace waited for %v", waited)
		}
	}
	if last := told[fmt.Sprint("flood", taken-1)]; last < 300*time.Second {
		t.Errorf("the flood was told within %v", last)
	}
}

// TestManyNamespacesDontKeepTheNodeBack: whoever can make namespaces has many
// shares, but not the node's.
func TestManyNamespacesDontKeepTheNodeBack(t *testing.T) {
	t.Parallel()
	now, b := time.Unix(0, 0), newEventBook()
	for i := range 2 * manySources {
		name := fmt.Sprint("ns", i)
		b.add(now, name, name, name)
	}
	for b.all.wait(now) == 0 {
		b.next(now)
	}
	for i := range 3 {
		name := fmt.Sprint("node", i)
		b.add(now, nodeSource, name, name)
	}
	told := b.tell(now, time.Hour)
	for i := range 3 {
		if waited, want := told[fmt.Sprint("node", i)], time.Duration(i+1)*allEventsInterval; waited > want {
			t.Errorf("Event %d of the node waited for %v, want at most %v", i, waited, want)
		}
	}
}

// TestLastEventCounts: what is told of an object is how it is now, in its
// place; and what has been told is forgotten.
func TestLastEventCounts(t *testing.T) {
	t.Parallel()
	now, b := time.Unix(0, 0), newEventBook()
	b.add(now, "ns", "a", "first")
	b.add(now, "ns", "b", "other")
	b.add(now, "ns", "a", "last")
	for _, want := range []string{"last", "other"} {
		if e, _, ok := b.next(now); !ok || e.note != want {
			t.Errorf("got %q, want %q", e.note, want)
		}
	}
	if _, wait, ok := b.next(now); ok || wait != 0 {
		t.Errorf("more to tell, after %v", wait)
	}
	if b.prune(now.Add(time.Hour)); len(b.sources) > 0 || len(b.turns) > 0 {
		t.Errorf("%d sources, %d turns are left", len(b.sources), len(b.turns))
	}
}

func TestBucket(t *testing.T) {
	t.Parallel()
	start := time.Unix(0, 0)
	b := bucket{most: 3, every: 10 * time.Second}
	for i, step := range []struct {
		at   time.Duration
		want bool
	}{
		{0, true}, {0, true}, {0, true}, {0, false}, {9 * time.Second, false}, {10 * time.Second, true}, {11 * time.Second, false},
		{time.Hour, true}, {time.Hour, true}, {time.Hour, true}, {time.Hour, false}, {time.Minute, false}, // a clock that goes back
	} {
		if got := b.take(start.Add(step.at)); got != step.want {
			t.Errorf("step %d, after %v: %v", i, step.at, got)
		}
	}
	if b.idle(start.Add(time.Hour)) || !b.idle(start.Add(time.Hour+30*time.Second)) {
		t.Error("idle too early or too late")
	}
}

// TestLineBudgets: one source's lines don't use up another's, and those that
// were left out are counted in its next one.
func TestLineBudgets(t *testing.T) {
	t.Parallel()
	now, l := time.Unix(0, 0), lineBudgets{}
	got := 0
	for range 1000 {
		if _, ok := l.take(now, "flood"); ok {
			got++
		}
	}
	if got != linesAtOnce {
		t.Errorf("%d lines at once, want %d", got, linesAtOnce)
	}
	if _, ok := l.take(now, "other"); !ok {
		t.Error("another source has no line")
	}
	if left, ok := l.take(now.Add(lineInterval), "flood"); !ok || left != 1000-linesAtOnce {
		t.Errorf("the next line: %v, %d left out before", ok, left)
	}
	for i := range 10 * manySources {
		l.take(now.Add(time.Duration(i)*time.Minute), fmt.Sprint(i))
	}
	if len(l) > manySources {
		t.Errorf("%d sources are remembered", len(l))
	}
}
