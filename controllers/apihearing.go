package controllers

import (
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
)

var apiHeard = prometheus.NewGaugeVec(prometheus.GaugeOpts{
	Name: "sluice_api_heard_timestamp_seconds",
	Help: "When the API server last sent anything about a kind of objects; it does so each minute. What is older: changes may not have come.",
}, []string{"resource"})

// hearing tells when the API server isn't heard about a resource, and when it
// is again. It has no clock: times are its caller's.
type hearing struct {
	last, since time.Time // of being heard; of not being heard, zero if it is
}

// hear notes that something came. After a time without it returns how long
// nothing was heard.
func (h *hearing) hear(now time.Time) (unheard time.Duration, isNews bool) {
	if isNews = !h.since.IsZero(); isNews {
		unheard = now.Sub(h.since)
		if !h.last.IsZero() {
			unheard = now.Sub(h.last)
		}
	}
	h.last, h.since = now, time.Time{}
	return unheard, isNews
}

// miss notes that nothing comes; it is news when that begins.
func (h *hearing) miss(now time.Time) (isNews bool) {
	if isNews = h.since.IsZero(); isNews {
		h.since = now
	}
	return isNews
}

// longUnheard is from when on an Event tells that the API server wasn't heard.
const longUnheard = time.Minute

// apiHearing tells of what the API server is heard about. It may be used from
// several goroutines.
type apiHearing struct {
	log    logr.Logger
	events NodeEvents

	mu sync.Mutex
	of map[string]*hearing
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
	unheard, isNews := a.get(resource).hear(now)
	a.mu.Unlock()
	apiHeard.WithLabelValues(resource).Set(float64(now.Unix()))
	if !isNews {
		return
	}
	unheard = unheard.Round(time.Second)
	a.log.Info("The API server is heard again", "about", resource, "unheard", unheard.String())
	if unheard >= longUnheard {
		a.events.Warn("APIServerUnheard", fmt.Sprintf("nothing was heard of the API server about %s for %s: what changed meanwhile comes into force now", resource, unheard))
	}
}

func (a *apiHearing) miss(now time.Time, resource string, err error) {
	a.mu.Lock()
	isNews := a.get(resource).miss(now)
	a.mu.Unlock()
	if isNews {
		a.log.Info("The API server isn't heard; what is in the kernel holds", "about", resource, "reason", err.Error())
	}
}
