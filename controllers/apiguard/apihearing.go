package apiguard

import (
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/controllers/notify"
)

// hearing finds when the API server isn't heard about a resource, and when it is again. It has no
// clock: times are its caller's.
type hearing struct {
	last     time.Time // of being heard; zero if it never was
	since    time.Time // of the first end of a watch after that; zero if there is none
	ends     int       // of watches, and of attempts at one, after that
	reported bool      // that it isn't heard
}

// longUnheard is how long the API server has to be unheard for an Event.
const longUnheard = time.Minute

// hear notes that something came. After a silence it returns how long that was, whether to report
// it, and whether by an Event. There is no Event if the next watch is answered at once, however
// long the silence was: some API servers send nothing while nothing changes.
func (h *hearing) hear(now time.Time) (unheard time.Duration, isNews, isLong bool) {
	if !h.since.IsZero() {
		waited := now.Sub(h.since)
		unheard = waited
		if !h.last.IsZero() {
			unheard = now.Sub(h.last)
		}
		isNews = h.reported || waited >= longUnheard
		isLong = unheard >= longUnheard && (h.ends > 1 || waited >= longUnheard)
	}
	*h = hearing{last: now}
	return unheard, isNews, isLong
}

// fallSilent notes that a watch was ended because nothing came. That is no news until the next
// watch fails.
func (h *hearing) fallSilent(now time.Time) {
	if h.since.IsZero() {
		h.since = now
	}
	h.ends++
}

// miss notes that a watch failed; it is news when that begins.
func (h *hearing) miss(now time.Time) (isNews bool) {
	h.fallSilent(now)
	isNews, h.reported = !h.reported, true
	return isNews
}

// apiHearing reports about which resources the API server is heard. It may be used from several
// goroutines.
type apiHearing struct {
	log    logr.Logger
	events notify.NodeEvents
	heard  *prometheus.GaugeVec

	mu sync.Mutex
	of map[string]*hearing
}

func newAPIHearing(log logr.Logger) *apiHearing {
	return &apiHearing{log: log, heard: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sluice_api_heard_timestamp_seconds",
		Help: "When the API server last sent anything about a kind of objects; it does so each " +
			"minute, or, without bookmarks, each --api-silence. What is older: changes may not " +
			"have come.",
	}, []string{"resource"})}
}

func (a *apiHearing) get(resource string) *hearing {
	if a.of == nil {
		a.of = map[string]*hearing{}
	}
	if a.of[resource] == nil {
		a.of[resource] = &hearing{}
	}
	return a.of[resource]
}

func (a *apiHearing) hear(now time.Time, resource string) {
	a.mu.Lock()
	unheard, isNews, isLong := a.get(resource).hear(now)
	a.heard.WithLabelValues(resource).Set(float64(now.Unix()))
	a.mu.Unlock()
	if !isNews {
		return
	}
	unheard = unheard.Round(time.Second)
	a.log.Info("The API server is heard again", "about", resource, "unheard", unheard.String())
	if isLong {
		a.events.Warn("APIServerUnheard", fmt.Sprintf("nothing was heard of the API server about "+
			"%s for %s: what changed meanwhile comes into force now", resource, unheard))
	}
}

// forget is for a resource that isn't watched any more.
func (a *apiHearing) forget(resource string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.of, resource)
	a.heard.DeleteLabelValues(resource)
}

func (a *apiHearing) fallSilent(now time.Time, resource string) {
	a.mu.Lock()
	a.get(resource).fallSilent(now)
	a.mu.Unlock()
	a.log.V(1).Info("The API server has sent nothing for long, and is asked anew", "about",
		resource)
}

func (a *apiHearing) miss(now time.Time, resource string, err error) {
	a.mu.Lock()
	isNews := a.get(resource).miss(now)
	a.mu.Unlock()
	if isNews {
		a.log.Info("The API server isn't heard; what is in the kernel holds", "about", resource,
			"reason", err.Error())
	}
}
