package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/sluice-net/sluice/controllers"
)

// TestVerifyExitCodes: scripts tell what differs from what couldn't be told.
func TestVerifyExitCodes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer controllers.VerifyAnswer
		args   []string
		away   bool
		want   int
	}{
		"equal":      {answer: controllers.VerifyAnswer{Classes: 5}, want: 0},
		"different":  {answer: controllers.VerifyAnswer{Classes: 5, Total: 1, Differences: []string{"a"}}, want: exitDiffers},
		"unreadable": {answer: controllers.VerifyAnswer{Error: "a table"}, want: exitUnverified},
		"agent away": {away: true, want: exitUnverified},
		"bad flag":   {args: []string{"--none"}, want: exitUnverified},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "s")
			if !c.away {
				serveAnswer(t, socket, c.answer)
			}
			err := runVerify(t.Context(), append(c.args, "--socket", socket))
			got := 0
			if err != nil {
				got = exitCode(err)
			}
			if got != c.want {
				t.Errorf("want %d, got %d: %v", c.want, got, err)
			}
		})
	}
}

func serveAnswer(t *testing.T, socket string, answer controllers.VerifyAnswer) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/verify" {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(answer) // the client says what it misses
	}))
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
}
