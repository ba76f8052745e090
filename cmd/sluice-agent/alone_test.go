package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/controllers/notify"
)

const standbyPatience = 10 * time.Second

func standingBy(t *testing.T,
	stateDir, socket string) (reports chan string, done chan error, agent *onlyAgent) {
	t.Helper()
	reports, done = make(chan string, 10), make(chan error, 1)
	agent = &onlyAgent{stateDir: stateDir, socket: socket, standsBy: func(why string) {
		reports <- why
	}}
	go func() { done <- agent.wait(t.Context()) }()
	return reports, done, agent
}

func within[T any](t *testing.T, what string, from <-chan T) (got T) {
	t.Helper()
	select {
	case got = <-from:
	case <-time.After(standbyPatience):
		t.Fatalf("no %s", what)
	}
	return got
}

// TestOnlyAgent: the second agent of a node stands by, without a file of its own, and takes over
// when the first ends.
func TestOnlyAgent(t *testing.T) {
	t.Parallel()
	stateDir := filepath.Join(t.TempDir(), "state")
	socket := filepath.Join(stateDir, cni.SocketName)
	reports, done, first := standingBy(t, stateDir, socket)
	if err := within(t, "first agent", done); err != nil || len(reports) > 0 {
		t.Fatalf("the first agent waits: %v", err)
	}
	reports, done, second := standingBy(t, stateDir, socket)
	if why := within(t, "word of the first", reports); !strings.Contains(why, "locked "+stateDir) {
		t.Errorf("reported %q", why)
	}
	select {
	case err := <-done:
		t.Fatalf("the second goes on beside the first: %v", err)
	case <-time.After(2 * lookAgain):
	}
	if entries, err := os.ReadDir(stateDir); err != nil || len(entries) > 0 {
		t.Errorf("it has written %v, error %v", entries, err)
	}
	if err := first.lock.Close(); err != nil { // as its end does
		t.Fatal(err)
	}
	if err := within(t, "second agent", done); err != nil {
		t.Error(err)
	}
	if err := second.lock.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLockLasts: the agent that awaitOtherAgents returned has the lock until it is released, and
// not only until the next collection of garbage.
func TestLockLasts(t *testing.T) {
	t.Parallel()
	stateDir := t.TempDir()
	only, err := awaitOtherAgents(t.Context(), &options{stateDir: stateDir, socket: "/nowhere"},
		notify.NodeEvents{}, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	locked := func() bool {
		dir, err := os.Open(stateDir)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		err = flock(dir, unix.LOCK_EX|unix.LOCK_NB)
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			t.Fatal(err)
		}
		return err != nil
	}
	for range 3 {
		runtime.GC()
	}
	if !locked() {
		t.Error("the lock is gone while the agent runs")
	}
	only.release()
	if locked() {
		t.Error("the lock outlives the agent")
	}
}

// TestWithoutALock: where there can't be a lock an agent goes on, and says so.
func TestWithoutALock(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var why error
	agent := &onlyAgent{stateDir: filepath.Join(file, "state"), socket: "/nowhere",
		noLock: func(err error) { why = err }}
	if err := agent.wait(t.Context()); err != nil || why == nil ||
		!strings.Contains(why.Error(), "making --state-dir") {
		t.Errorf("ended with %v, reported %v", err, why)
	}
	agent.release()
}

// TestOnlyAgentBesideAnOlder: an agent that takes no lock is known by its socket; what a dead one
// left isn't one.
func TestOnlyAgentBesideAnOlder(t *testing.T) {
	t.Parallel()
	stateDir := t.TempDir()
	socket := filepath.Join(stateDir, cni.SocketName)
	older, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	older.SetUnlinkOnClose(false)
	reports, done, _ := standingBy(t, stateDir, socket)
	why := within(t, "word of the older", reports)
	if !strings.Contains(why, "answers on "+socket) {
		t.Errorf("reported %q", why)
	}
	if err := older.Close(); err != nil {
		t.Fatal(err)
	}
	if err := within(t, "end of the wait", done); err != nil {
		t.Error(err)
	}
}

// TestStandsBy: who stands by lives, isn't ready, and says so on the node.
func TestStandsBy(t *testing.T) {
	t.Parallel()
	stateDir := t.TempDir()
	_, done, first := standingBy(t, stateDir, "/nowhere")
	if err := within(t, "first agent", done); err != nil {
		t.Fatal(err)
	}
	recorder := events.NewFakeRecorder(10)
	logged, ended := make(chan string, 10), make(chan error, 1)
	log := funcr.New(func(_, args string) { logged <- args }, funcr.Options{})
	go func() {
		o := &options{stateDir: stateDir, socket: "/nowhere", httpAddress: "127.0.0.1:0"}
		only, err := awaitOtherAgents(t.Context(), o,
			notify.NodeEvents{Node: "n1", Recorder: recorder}, log)
		only.release()
		ended <- err
	}()
	line := within(t, "line of the log", logged)
	_, address, _ := strings.Cut(line, `"health"="`)
	address = strings.TrimSuffix(address, `"`)
	event := within(t, "Event", recorder.Events)
	if !strings.HasPrefix(event, "Warning AnotherAgent") {
		t.Errorf("reported %q", event)
	}
	for path, want := range map[string]string{"/healthz": "200 ok",
		"/readyz": "503 stands by: another agent has locked"} {
		// it listens before it says where
		if got := ask(t.Context(), "http://"+address+path); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q, logged %s", path, got, want, line)
		}
	}
	if err := first.lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := within(t, "end of the wait", ended); err != nil {
		t.Error(err)
	}
	if got := ask(t.Context(), "http://"+address+"/healthz"); got != "" {
		t.Errorf("it still answers %q", got)
	}
}

func ask(ctx context.Context, url string) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.Status[:3] + " " + string(body)
}
