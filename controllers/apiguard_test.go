package controllers

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"k8s.io/client-go/tools/events"
)

// TestSilentRequestsEnd: over a connection that lives and answers HTTP/2's
// pings, an answer that stops coming, and one that never begins, end as a
// connection does; one that goes on is left alone, and so is one that nobody
// reads for a while.
func TestSilentRequestsEnd(t *testing.T) {
	t.Parallel()
	const silence, patience = 3 * time.Second, 30 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stop := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
			tick := time.NewTicker(silence / 30)
			defer tick.Stop()
			for range 40 {
				<-tick.C
				flush()
			}
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	defer close(stop)
	client := server.Client()
	client.Transport = NewAPIGuard(silence, logr.Discard()).Wrap(client.Transport)
	open := func(path string) (*http.Response, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, http.NoBody)
		if err != nil {
			return nil, err
		}
		return client.Do(request)
	}
	get := func(path string) (text string, err error) {
		response, err := open(path)
		if err != nil {
			return "", err
		}
		defer func() { _ = response.Body.Close() }()
		if response.ProtoMajor != 2 {
			t.Errorf("%s came by %s", path, response.Proto)
		}
		all, err := io.ReadAll(response.Body)
		return string(all), err
	}
	var all sync.WaitGroup
	for path, want := range map[string]struct {
		text string
		err  error
	}{
		"/stops?watch=true": {"event\n", io.ErrUnexpectedEOF}, "/never?watch=true": {"", io.ErrUnexpectedEOF}, "/goes-on?watch=true": {strings.Repeat("event\n", 40), nil},
	} {
		all.Go(func() {
			if text, err := get(path); text != want.text || !errors.Is(err, want.err) {
				t.Errorf("%s: got %q, %v; want %q, %v", path, text, err, want.text, want.err)
			}
		})
	}
	all.Wait()
	response, err := open("/goes-on")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewReader(response.Body)
	pause(ctx, silence*4/3)
	if line, err := lines.ReadString('\n'); err != nil {
		t.Errorf("read late: %q, %v", line, err)
	}
}

// TestUnheardIsTold: once when it begins and once when it is over; after a
// minute by an Event too.
func TestUnheardIsTold(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var lines []string
	recorder := events.NewFakeRecorder(10)
	a := apiHearing{
		log:    funcr.New(func(_, args string) { mu.Lock(); defer mu.Unlock(); lines = append(lines, args) }, funcr.Options{}),
		events: NodeEvents{Node: "n", Recorder: recorder},
	}
	start := time.Unix(1000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	a.hear(at(0), "pods")
	a.hear(at(60), "pods")
	for s := range 3 {
		a.miss(at(70+s), "pods", errors.New("gone"))
	}
	a.hear(at(80), "pods")
	a.hear(at(81), "pods")
	a.miss(at(90), "pods", errors.New("gone"))
	a.hear(at(200), "pods")
	a.miss(at(300), "nodes", errors.New("never there"))
	a.hear(at(310), "nodes")
	want := []string{
		`"about"="pods" "reason"="gone"`, `"about"="pods" "unheard"="20s"`, `"about"="pods" "reason"="gone"`, `"about"="pods" "unheard"="1m59s"`,
		`"about"="nodes" "reason"="never there"`, `"about"="nodes" "unheard"="10s"`,
	}
	if len(lines) != len(want) {
		t.Fatalf("got %q", lines)
	}
	for i := range want {
		if !strings.HasSuffix(lines[i], want[i]) {
			t.Errorf("line %d: %s, want %s", i, lines[i], want[i])
		}
	}
	if got := <-recorder.Events; !strings.Contains(got, "APIServerUnheard nothing was heard of the API server about pods for 1m59s") || len(recorder.Events) > 0 {
		t.Errorf("Event %q, and %d more", got, len(recorder.Events))
	}
}
