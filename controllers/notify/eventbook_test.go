package notify

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-net/sluice/internal/fair"
)

// drain takes the Events that are due until a moment, and returns when each was sent.
func (b *eventBook) drain(from time.Time, until time.Duration) map[string]time.Duration {
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

// TestAFloodOfEventsCostsItselfAlone: while one namespace has far more Events than its share, those
// of others and of the node are sent at once.
func TestAFloodOfEventsCostsItselfAlone(t *testing.T) {
	t.Parallel()
	now, b := time.Unix(0, 0), newEventBook()
	taken := 0
	for i := range 10_000 {
		if name := fmt.Sprint("flood", i); b.add(now, "tenant", name, name) {
			taken++
		}
	}
	if taken != MostWaiting {
		t.Errorf("%d Events of one namespace wait, want %d", taken, MostWaiting)
	}
	for i := range 20 {
		name := fmt.Sprint("other", i)
		b.add(now, name, name, name)
	}
	b.add(now, nodeSource, "node", "node")
	sent := b.drain(now, time.Hour)
	if len(sent) != taken+21 {
		t.Errorf("%d Events were sent, want %d", len(sent), taken+21)
	}
	if sent["node"] != 0 {
		t.Errorf("the node's Event waited for %v", sent["node"])
	}
	for i := range 20 {
		if waited := sent[fmt.Sprint("other", i)]; waited > 11*time.Second {
			t.Errorf("the Event of another namespace waited for %v", waited)
		}
	}
	if last := sent[fmt.Sprint("flood", taken-1)]; last < 300*time.Second {
		t.Errorf("the flood was sent within %v", last)
	}
}

// TestManyNamespacesDontKeepTheNodeBack: a tenant that can make namespaces has many shares, but not
// the node's.
func TestManyNamespacesDontKeepTheNodeBack(t *testing.T) {
	t.Parallel()
	now, b := time.Unix(0, 0), newEventBook()
	for i := range 2 * fair.ManySources {
		name := fmt.Sprint("ns", i)
		b.add(now, name, name, name)
	}
	for b.all.Wait(now) == 0 {
		b.next(now)
	}
	for i := range 3 {
		name := fmt.Sprint("node", i)
		b.add(now, nodeSource, name, name)
	}
	sent := b.drain(now, time.Hour)
	for i := range 3 {
		waited, want := sent[fmt.Sprint("node", i)], time.Duration(i+1)*allEventsInterval
		if waited > want {
			t.Errorf("Event %d of the node waited for %v, want at most %v", i, waited, want)
		}
	}
}

// TestLastEventCounts: the last Event about an object takes the place of earlier ones, and what was
// sent is forgotten.
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
		t.Errorf("more to send, after %v", wait)
	}
	if b.prune(now.Add(time.Hour)); len(b.sources) > 0 || len(b.turns) > 0 {
		t.Errorf("%d sources, %d turns are left", len(b.sources), len(b.turns))
	}
}
