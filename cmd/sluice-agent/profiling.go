package main

import (
	"net/http"
	"net/http/pprof"

	"github.com/sluice-net/sluice/controllers"
)

// handlersOf are what the agent serves at --http-address besides its metrics.
func handlersOf(o *options, ready ...func() error) map[string]http.Handler {
	handlers := controllers.HealthHandlers(ready...)
	if o.profiling {
		addProfiling(handlers)
	}
	return handlers
}

// addProfiling adds where the runtime tells what the agent does: /debug/pprof/, for go tool pprof.
func addProfiling(handlers map[string]http.Handler) {
	for path, handler := range map[string]http.HandlerFunc{
		"":        pprof.Index, // and by name: heap, goroutine, ...
		"cmdline": pprof.Cmdline,
		"profile": pprof.Profile,
		"symbol":  pprof.Symbol,
		"trace":   pprof.Trace,
	} {
		handlers["/debug/pprof/"+path] = handler
	}
}
