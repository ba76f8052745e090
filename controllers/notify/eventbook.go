package notify

import (
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-net/sluice/internal/fair"
)

// notice is an Event to be told, with the arguments of a recorder.
type notice struct {
	regarding, related         runtime.Object
	kind, reason, action, note string
}

// eventKey is what an Event is about. Of those about the same the last counts.
type eventKey struct{ object, uid, related, kind, reason, action string }

// eventBook holds the Events that wait to be told, by source: what they come from, such as a
// namespace. Each source has a bounded number of them and a pace of its own, and all take turns, so
// that a flood of one costs itself alone. What comes from the node itself is told before all
// others, in its order. It has no clock, and isn't for concurrent use.
type eventBook struct {
	sources map[string]*eventSource
	turns   []string // sources with waiting Events, the next one first
	all     fair.Bucket
}

type eventSource struct {
	fair.Bucket
	waiting []eventKey // oldest first
	events  map[eventKey]notice
}

// nodeSource is where Events about the node itself come from.
const nodeSource = ""

// MostWaiting is how many Events of one source may wait.
const MostWaiting = 50

// The pace of all Events is below what client-go's limiter lets through, 5 a second, in which they
// would wait without an order. eventsAtOnce and eventInterval are the pace of each source.
const (
	allEventsAtOnce, allEventsInterval = 8, 250 * time.Millisecond
	eventsAtOnce, eventInterval        = 10, 10 * time.Second
)

func newEventBook() *eventBook {
	return &eventBook{sources: map[string]*eventSource{},
		all: fair.Bucket{Most: allEventsAtOnce, Every: allEventsInterval}}
}

// put takes in an Event, unless too many of its source wait.
func (b *eventBook) put(now time.Time, source string, key eventKey, e notice) (ok bool) {
	s := b.sources[source]
	if s == nil {
		if len(b.sources) >= fair.ManySources {
			b.prune(now)
		}
		s = &eventSource{Bucket: fair.Bucket{Most: eventsAtOnce, Every: eventInterval},
			events: map[eventKey]notice{}}
		b.sources[source] = s
	}
	if _, waits := s.events[key]; !waits {
		if len(s.waiting) == MostWaiting {
			return false
		}
		if len(s.waiting) == 0 {
			b.turns = append(b.turns, source)
		}
		s.waiting = append(s.waiting, key)
	}
	s.events[key] = e
	return true
}

// prune forgets the sources that have nothing to tell and told nothing lately.
func (b *eventBook) prune(now time.Time) {
	for name, s := range b.sources {
		if len(s.waiting) == 0 && s.Idle(now) {
			delete(b.sources, name)
		}
	}
}

// next returns the Event to tell now, or else how long to wait for one; 0 if none waits.
func (b *eventBook) next(now time.Time) (e notice, wait time.Duration, ok bool) {
	if wait = b.all.Wait(now); wait > 0 && len(b.turns) > 0 {
		return notice{}, wait, false
	}
	turn := -1
	for i, name := range b.turns {
		its := b.sources[name].Wait(now)
		if its > 0 {
			if wait == 0 || its < wait {
				wait = its
			}
			continue
		}
		if turn < 0 || name == nodeSource {
			turn = i
		}
	}
	if turn < 0 {
		return notice{}, wait, false
	}
	b.all.Take(now)
	return b.takeOf(now, turn), 0, true
}

// takeOf takes the oldest Event of the source that has this turn, which it has again after all
// others.
func (b *eventBook) takeOf(now time.Time, turn int) notice {
	name := b.turns[turn]
	s := b.sources[name]
	s.Take(now)
	key := s.waiting[0]
	e := s.events[key]
	delete(s.events, key)
	s.waiting = s.waiting[1:]
	b.turns = append(b.turns[:turn], b.turns[turn+1:]...)
	if len(s.waiting) > 0 {
		b.turns = append(b.turns, name)
	}
	return e
}
