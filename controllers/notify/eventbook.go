package notify

import (
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-net/sluice/internal/fair"
)

// notice is an Event to be sent, with the arguments of a recorder.
type notice struct {
	regarding, related         runtime.Object
	kind, reason, action, note string
}

// eventKey is what an Event is about. Of several Events with one key the last counts.
type eventKey struct{ object, uid, related, kind, reason, action string }

// eventBook holds the Events that wait to be sent, by source: the namespace, for instance, that
// they come from. Each source has a bounded number of Events and a pace of its own, and the sources
// take turns, so that a flood of one delays that one alone. The node's own Events go before all
// others, in their order. It has no clock, and isn't for concurrent use.
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

// nodeSource is the source of Events about the node itself.
const nodeSource = ""

// MostWaiting bounds the waiting Events of one source.
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

// prune forgets the sources that have nothing to send and sent nothing lately.
func (b *eventBook) prune(now time.Time) {
	for name, s := range b.sources {
		if len(s.waiting) == 0 && s.Idle(now) {
			delete(b.sources, name)
		}
	}
}

// next returns the Event to send now, or else how long to wait for one; 0 if none waits.
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

// takeOf takes the oldest Event of the source whose turn it is; its next turn comes after all
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
