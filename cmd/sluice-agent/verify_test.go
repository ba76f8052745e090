package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/controllers/answers"
)

// TestVerifyExitCodes: a difference and a failed verification have different exit codes.
func TestVerifyExitCodes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer answers.VerifyAnswer
		args   []string
		away   bool
		want   int
	}{
		"equal": {answer: answers.VerifyAnswer{Classes: 5}, want: 0},
		"different": {answer: answers.VerifyAnswer{Classes: 5, Total: 1,
			Differences: []string{"a"}}, want: exitDiffers},
		"unreadable": {answer: answers.VerifyAnswer{Error: "a table"}, want: exitUnverified},
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

// TestNothingIsPrintedRaw: what an agent answers is printed without anything that does something to
// a terminal.
func TestNothingIsPrintedRaw(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	serveAnswer(t, socket,
		answers.VerifyAnswer{Total: 1, Classes: 1, Differences: []string{"dev/db " + hostile}})
	printed := captureStdout(t, func() {
		err := runVerify(t.Context(), []string{"--socket", socket})
		if exitCode(err) != exitDiffers {
			t.Errorf("got %v", err)
		}
	})
	if !strings.Contains(printed, "dev/db ") ||
		strings.ContainsFunc(printed,
			func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		t.Errorf("printed: %q", printed)
	}
}

// captureStdout returns what f prints.
func captureStdout(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	old := os.Stdout
	os.Stdout = file
	defer func() { os.Stdout = old }()
	f()
	text, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func serveAnswer(t *testing.T, socket string, answer answers.VerifyAnswer) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != cni.PathVerify {
				http.NotFound(w, r)
				return
			}
			_ = json.NewEncoder(w).Encode(answer) // the client says what it misses
		}))
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
}
