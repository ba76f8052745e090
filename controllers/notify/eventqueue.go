package notify

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/internal/printable"
)

// EventQueue stands before a recorder of client-go, which takes Events in one order, and drops all
// that come while a thousand wait. Here Events are sent at a bounded pace, and those of one
// namespace don't delay others. Its methods may be called from several goroutines, and never wait.
type EventQueue struct {
	recorder events.EventRecorder
	leftOut  prometheus.Counter
	wake     chan struct{} // holds a token while there may be something to do

	mu   sync.Mutex
	book *eventBook
}

// NewEventQueue returns an EventQueue that sends nothing before Run.
func NewEventQueue(recorder events.EventRecorder) *EventQueue {
	leftOut := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_events_left_out_total",
		Help: "Events that weren't put on their objects because too many of the same source (a " +
			"namespace, another node) waited.",
	})
	return &EventQueue{recorder: recorder, leftOut: leftOut, wake: make(chan struct{}, 1),
		book: newEventBook()}
}

// Metrics are to be registered once.
func (q *EventQueue) Metrics() []prometheus.Collector { return []prometheus.Collector{q.leftOut} }

// Eventf puts an Event on an object, as one that comes from the related object, if there is one, or
// else from the object's namespace. It implements events.EventRecorder.
func (q *EventQueue) Eventf(regarding, related runtime.Object, kind, reason, action, note string,
	args ...any) {
	source := nameOf(regarding).namespace
	if related != nil {
		source = nameOf(related).String()
	}
	q.put(source, notice{regarding, related, kind, reason, action, fmt.Sprintf(note, args...)})
}

// From is a recorder for Events, about any objects, that something other than the node causes;
// source names that cause.
func (q *EventQueue) From(source string) events.EventRecorder { return eventsFrom{q, source} }

type eventsFrom struct {
	queue  *EventQueue
	source string
}

func (f eventsFrom) Eventf(regarding, related runtime.Object, kind, reason, action, note string,
	args ...any) {
	f.queue.put(f.source,
		notice{regarding, related, kind, reason, action, fmt.Sprintf(note, args...)})
}

func (q *EventQueue) put(source string, e notice) {
	e.note = Clamp(printable.Line(e.note))
	object, related := nameOf(e.regarding), nameOf(e.related)
	key := eventKey{object.String(), object.uid, related.String(), e.kind, e.reason, e.action}
	q.mu.Lock()
	ok := q.book.put(time.Now(), source, key, e)
	q.mu.Unlock()
	if !ok {
		q.leftOut.Inc()
		return
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Run sends until ctx ends.
func (q *EventQueue) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.wake:
		case <-timer.C:
		}
		if wait := q.send(); wait > 0 {
			timer.Reset(wait)
		}
	}
}

// send hands over the Events that are due, and returns how long to wait for the next; 0 if none
// waits.
func (q *EventQueue) send() time.Duration {
	for {
		q.mu.Lock()
		e, wait, ok := q.book.next(time.Now())
		q.mu.Unlock()
		if !ok {
			return wait
		}
		q.recorder.Eventf(e.regarding, e.related, e.kind, e.reason, e.action, "%s", e.note)
	}
}

type objectName struct{ kind, namespace, name, uid string }

func (n objectName) String() string {
	return strings.Join([]string{n.kind, n.namespace, n.name}, "/")
}

// nameOf names an object. Where the object has no kind, its Go type stands for it.
func nameOf(o runtime.Object) objectName {
	if o == nil {
		return objectName{}
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return objectName{kind: fmt.Sprintf("%T", o)}
	}
	return objectName{fmt.Sprintf("%T", o), m.GetNamespace(), m.GetName(), string(m.GetUID())}
}
