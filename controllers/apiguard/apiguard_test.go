package apiguard

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-net/sluice/internal/pause"
)

// guardedServer is an API server that does what its path says, and a client of it that a guard
// looks after.
type guardedServer struct {
	*httptest.Server
	guard *Guard
	lines func() []string // of the guard's log
}

func newGuardedServer(t *testing.T, silence time.Duration, http2 bool) *guardedServer {
	t.Helper()
	stop := make(chan struct{})
	server := httptest.NewUnstartedServer(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			flush := func() { _, _ = io.WriteString(w, "event\n"); w.(http.Flusher).Flush() }
			wait := func() {
				select {
				case <-stop:
				case <-r.Context().Done():
				}
			}
			switch r.URL.Path {
			case "/stops":
				flush()
				wait()
			case "/never":
				wait()
			case "/goes-on":
				tick := time.NewTicker(silence / 37)
				defer tick.Stop()
				for range 40 {
					<-tick.C
					flush()
				}
			default:
				status, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
				if err != nil {
					status = http.StatusNotFound
				}
				w.WriteHeader(status)
				flush()
			}
		}))
	server.EnableHTTP2 = http2
	server.StartTLS()
	t.Cleanup(func() { close(stop); server.Close() })
	log, lines := linesOf()
	guard := New(silence, log)
	server.Client().Transport = guard.Wrap(server.Client().Transport)
	return &guardedServer{server, guard, lines}
}

func (s *guardedServer) open(ctx context.Context, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	return s.Client().Do(request)
}

// get reads an answer from its beginning, or from some time on.
func (s *guardedServer) get(ctx context.Context, path string,
	after time.Duration) (text string, err error) {
	response, err := s.open(ctx, path)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	if after > 0 {
		pause.For(ctx, after)
	}
	all, err := io.ReadAll(response.Body)
	return string(all), err
}

// TestSilentRequestsEnd: over a connection that lives and answers HTTP/2's pings, an answer that
// stops coming, and one that never begins, end as a connection does; one that goes on is left
// alone, and so is one without a reader for a while. A watch that was answered isn't reported yet.
func TestSilentRequestsEnd(t *testing.T) {
	t.Parallel()
	// A machine may stand still for seconds, so silence is long, and all wait at the same time.
	const silence, patience = 10 * time.Second, time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	server := newGuardedServer(t, silence, true)
	if first, err := server.open(ctx, "/200"); err != nil || first.Body.Close() != nil ||
		first.ProtoMajor != 2 {
		t.Fatalf("not HTTP/2: %v, %v", first, err)
	}
	var all sync.WaitGroup
	for path, want := range map[string]struct {
		after time.Duration
		text  string
		err   error
	}{
		"/stops?watch=true":   {0, "event\n", io.ErrUnexpectedEOF},
		"/never?watch=true":   {0, "", io.ErrUnexpectedEOF},
		"/goes-on?watch=true": {0, strings.Repeat("event\n", 40), nil},
		"/goes-on?late":       {silence * 21 / 20, strings.Repeat("event\n", 40), nil},
	} {
		all.Go(func() {
			if text, err := server.get(ctx, path, want.after); text != want.text ||
				!errors.Is(err, want.err) {
				t.Errorf("%s: got %q, %v; want %q, %v", path, text, err, want.text, want.err)
			}
		})
	}
	all.Wait()
	wantLines(t, "the log", server.lines(),
		`"about"="never" "reason"="the API server has sent nothing for 10s: unexpected EOF"`)
}

// TestARefusalIsUnheard: from what refuses a watch nothing is heard of the objects, though it says
// why. That watch lists aren't known is no news.
func TestARefusalIsUnheard(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]struct {
		heard bool
		lines []string
	}{
		"/200?watch=true": {true, nil},
		"/403?watch=true": {
			false, []string{`"about"="403" "reason"="403 Forbidden"`}},
		"/503?watch=true": {
			false, []string{`"about"="503" "reason"="503 Service Unavailable"`}},
		"/422?watch=true": {
			false, []string{`"about"="422" "reason"="422 Unprocessable Entity"`}},
		"/422?watch=true&sendInitialEvents=true": {false, nil},
		"/403":                                   {false, nil}, // no watch
	} {
		server := newGuardedServer(t, time.Minute, true)
		if text, err := server.get(t.Context(), path, 0); text != "event\n" || err != nil {
			t.Errorf("%s: got %q, %v", path, text, err)
		}
		about, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "?")
		if heard := !server.guard.hearing.get(about).last.IsZero(); heard != want.heard {
			t.Errorf("%s: heard %v, want %v", path, heard, want.heard)
		}
		wantLines(t, path, server.lines(), want.lines...)
	}
}

// TestWhoClosesMissesNothing: a watch that its reader closes, which ends a Read that waits, is no
// loss; that the connection ends is one.
func TestWhoClosesMissesNothing(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		for who, lost := range map[string]bool{"reader": false, "server": true} {
			server := newGuardedServer(t, time.Minute, http2)
			response, err := server.open(t.Context(), "/stops?watch=true")
			if err != nil {
				t.Fatal(err)
			}
			body := bufio.NewReader(response.Body)
			if line, err := body.ReadString('\n'); err != nil {
				t.Fatalf("%q, %v", line, err)
			}
			ended := make(chan error)
			go func() { _, err := body.ReadString('\n'); ended <- err }()
			if lost {
				server.CloseClientConnections()
			} else if err := response.Body.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ended; err == nil {
				t.Errorf("%s closes (HTTP/2 %v): the Read has no error", who, http2)
			}
			_ = response.Body.Close()
			if reported := len(server.lines()) > 0; reported != lost {
				t.Errorf("%s closes (HTTP/2 %v): the log has %q", who, http2, server.lines())
			}
		}
	}
}
