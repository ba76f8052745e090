// Package apiguard looks after the agent's connections to the API server, and reports when the API
// server is silent.
package apiguard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/controllers/notify"
)

// Guard looks after the connections to the API server. HTTP/2's pings notice a dead connection: a
// ping 30 s after the last frame, and 15 s without an answer, see client-go. But a connection can
// live, for instance to a proxy, while requests through it are never answered: only the API server
// ends a watch, after some minutes. The API server sends a bookmark in each watch each minute. So
// where nothing comes for Silence, Guard ends the request, and the client makes it again.
type Guard struct {
	silence time.Duration
	hearing *apiHearing
}

// New returns a Guard, which reports to log, and to events once these are set.
func New(silence time.Duration, log logr.Logger) *Guard {
	return &Guard{silence: silence, hearing: newAPIHearing(log)}
}

// SetEvents sets where to report a long silence. It is called before the first request.
func (g *Guard) SetEvents(e notify.NodeEvents) { g.hearing.events = e }

// Metrics are to be registered once.
func (g *Guard) Metrics() []prometheus.Collector { return []prometheus.Collector{g.hearing.heard} }

// Forget says that a resource isn't watched any more, by its name in the API: that nothing is heard
// of it is no news.
func (g *Guard) Forget(resource string) { g.hearing.forget(resource) }

// Wrap is for the configuration of clients.
func (g *Guard) Wrap(next http.RoundTripper) http.RoundTripper { return guarded{g, next} }

type guarded struct {
	guard *Guard
	next  http.RoundTripper
}

// WrappedRoundTripper lets client-go find the transport.
func (t guarded) WrappedRoundTripper() http.RoundTripper { return t.next }

func (t guarded) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(request.Context())
	e := &exchange{guard: t.guard, caller: request.Context(), cancel: cancel}
	if request.URL.Query().Get("watch") == "true" {
		e.resource = path.Base(request.URL.Path)
	}
	e.timer = time.AfterFunc(t.guard.silence, func() { e.silent.Store(true); cancel() })
	response, err := t.next.RoundTrip(request.WithContext(ctx))
	if err != nil {
		return nil, e.end(err)
	}
	e.timer.Stop()
	e.answered(request, response)
	e.body, response.Body = response.Body, e
	return response, nil
}

// exchange is one request, and the body of its answer.
type exchange struct {
	guard    *Guard
	resource string // that is watched; or ""
	caller   context.Context
	cancel   func()
	body     io.ReadCloser
	timer    *time.Timer // runs while something is waited for
	silent   atomic.Bool
	closed   atomic.Bool // by the readers
}

// answered notes the answer's status. A refusal says nothing of the objects, with any body. One
// status is no news: API servers without watch lists (1.33, for instance) answer 422 to a watch
// that asks for existing objects, and client-go then asks in another way.
func (e *exchange) answered(request *http.Request, response *http.Response) {
	switch {
	case e.resource == "":
		return
	case response.StatusCode == http.StatusOK:
		e.hear()
		return
	case response.StatusCode != http.StatusUnprocessableEntity ||
		request.URL.Query().Get("sendInitialEvents") != "true":
		e.guard.hearing.miss(time.Now(), e.resource, errors.New(response.Status))
	}
	e.resource = ""
}

// Read waits for as long as silence may last. Time without a Read is no silence.
func (e *exchange) Read(p []byte) (int, error) {
	e.timer.Reset(e.guard.silence)
	n, err := e.body.Read(p)
	e.timer.Stop()
	if n > 0 && !e.closed.Load() && e.caller.Err() == nil { // its reader may have forgotten it
		e.hear()
	}
	if err != nil {
		err = e.end(err)
	}
	return n, err
}

// Close also ends a Read that waits: this end isn't the API server's.
func (e *exchange) Close() error {
	e.closed.Store(true)
	e.timer.Stop()
	e.cancel()
	return e.body.Close()
}

func (e *exchange) hear() {
	if e.resource != "" {
		e.guard.hearing.hear(time.Now(), e.resource)
	}
}

// end returns how a request ended that gives this error.
func (e *exchange) end(err error) error {
	e.timer.Stop()
	e.cancel()
	if e.silent.Load() {
		// Errors that clients take for the end of a connection.
		err = fmt.Errorf("the API server has sent nothing for %s: %w", e.guard.silence,
			io.ErrUnexpectedEOF)
	}
	fellSilent := e.silent.Load() && e.body != nil
	switch {
	case e.resource == "" || errors.Is(err, io.EOF) || e.caller.Err() != nil || e.closed.Load():
	case fellSilent:
		e.guard.hearing.fallSilent(time.Now(), e.resource)
	default:
		e.guard.hearing.miss(time.Now(), e.resource, err)
	}
	if fellSilent {
		return io.ErrUnexpectedEOF // as it is: the readers compare
	}
	return err
}
