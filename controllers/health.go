package controllers

import (
	"fmt"
	"net/http"
)

// HealthHandlers answers /healthz while the process serves, and /readyz once none of the checks,
// which are asked in their order, has an error.
func HealthHandlers(ready ...func() error) map[string]http.Handler {
	return map[string]http.Handler{
		"/healthz": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "ok")
		}),
		"/readyz": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for _, check := range ready {
				if err := check(); err != nil {
					http.Error(w, err.Error(), http.StatusServiceUnavailable)
					return
				}
			}
			fmt.Fprintln(w, "ok")
		}),
	}
}
