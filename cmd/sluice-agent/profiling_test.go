package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// Profiles are served only where they were asked for.
func TestProfiling(t *testing.T) {
	t.Parallel()
	for _, profiling := range []bool{false, true} {
		mux := http.NewServeMux()
		for path, h := range handlersOf(&options{profiling: profiling}) {
			mux.Handle(path, h)
		}
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet,
			"/debug/pprof/heap", nil))
		if served := answer.Code == http.StatusOK && answer.Body.Len() > 0; served != profiling {
			t.Errorf("profiling=%v: heap is answered by %d, %d bytes", profiling, answer.Code,
				answer.Body.Len())
		}
	}
}
