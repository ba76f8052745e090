package main

import (
	"net/http"
	"net/http/pprof"
)

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
