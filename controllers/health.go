package controllers

import (
	"fmt"
	"net/http"
)

// HealthHandlers answers /healthz while the process serves, and /readyz once
// everything is synced and the first ruleset is in the kernel.
func HealthHandlers(e *Enforcer) map[string]http.Handler {
	return map[string]http.Handler{
		"/healthz": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }),
		"/readyz": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if err := e.Ready(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		}),
	}
}
