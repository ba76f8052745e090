package cni

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/go-logr/logr/funcr"
	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/test/needroot"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = time.Minute

// fakeEnforcer remembers what it was asked. It is a fake of the agent, not of the kernel: it decides nothing.
type fakeEnforcer struct {
	mu       sync.Mutex
	onAttach func(context.Context, Attachment) error // may be nil
	onDetach func(id string) error                   // may be nil
	attached map[string]Attachment
	calls    []string
}

func (f *fakeEnforcer) Attach(ctx context.Context, a Attachment) error {
	onAttach, _ := f.note("attach " + a.ID())
	if onAttach != nil {
		if err := onAttach(ctx, a); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.attached == nil {
		f.attached = map[string]Attachment{}
	}
	f.attached[a.ID()] = a
	return nil
}

func (f *fakeEnforcer) Detach(_ context.Context, id string) error {
	_, onDetach := f.note("detach " + id)
	if onDetach != nil {
		if err := onDetach(id); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.attached, id)
	return nil
}

func (f *fakeEnforcer) Enforced(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.attached[id]; !ok {
		return errors.New("isn't in the kernel")
	}
	return nil
}

func (f *fakeEnforcer) note(call string) (onAttach func(context.Context, Attachment) error, onDetach func(id string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	return f.onAttach, f.onDetach
}

func (f *fakeEnforcer) setAttach(do func(context.Context, Attachment) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onAttach = do
}

func (f *fakeEnforcer) setDetach(do func(id string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onDetach = do
}

// forget is what the enforcement of an agent that was killed knows.
func (f *fakeEnforcer) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attached = nil
}

func (f *fakeEnforcer) ids() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.attached))
}

func (f *fakeEnforcer) callText() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, ", ")
}

// testAgent is a server in a directory of the test's own, and what can be done to it.
type testAgent struct {
	t        testing.TB
	stateDir string
	socket   string
	enforcer *fakeEnforcer
	options  func(*ServerOptions)
	isBare   bool // start tells it nothing of the node
	clock    *testClock
	log      *logText

	server *Server
	stop   func() // until then it runs
}

func newAgent(t testing.TB, options ...func(*ServerOptions)) *testAgent {
	t.Helper()
	a := makeAgent(t, options)
	a.start()
	return a
}

// newBareAgent makes one that knows nothing of the node yet.
func newBareAgent(t testing.TB, options ...func(*ServerOptions)) *testAgent {
	t.Helper()
	a := makeAgent(t, options)
	a.isBare = true
	a.start()
	return a
}

func makeAgent(t testing.TB, options []func(*ServerOptions)) *testAgent {
	t.Helper()
	needroot.SkipOthers(t)
	directory := t.TempDir()
	return &testAgent{
		t:        t,
		stateDir: directory,
		socket:   filepath.Join(directory, "cni.sock"),
		enforcer: &fakeEnforcer{},
		clock:    &testClock{now: noon},
		log:      &logText{},
		options: func(o *ServerOptions) {
			for _, set := range options {
				set(o)
			}
		},
	}
}

// start makes a new server on the same state, with podCIDRs, ready, and runs it.
func (a *testAgent) start() {
	a.t.Helper()
	options := ServerOptions{
		Socket: a.socket, StateDir: a.stateDir, Enforcer: a.enforcer, Log: funcr.New(a.log.add, funcr.Options{}), Now: a.clock.Now,
		withoutKernel: true,
	}
	a.options(&options)
	a.socket = options.Socket
	server, err := NewServer(options)
	if err != nil {
		a.t.Fatal(err)
	}
	if !a.isBare {
		server.SetPodCIDRs(prefixes("10.1.0.0/24", "fd00:1::/64"))
		server.SetDatapathReady(true, "")
	}
	a.server = server
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	a.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			a.t.Errorf("Run: %v", err)
		}
	})
	a.t.Cleanup(a.stop)
	eventually(a.t, "the socket", func() bool {
		conn, err := net.Dial("unix", a.socket)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (a *testAgent) call(path string, request, answer any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return NewClient(a.socket).Call(ctx, path, request, answer)
}

func (a *testAgent) add(r AddRequest) (AddAnswer, error) {
	var answer AddAnswer
	err := a.call(PathAdd, r, &answer)
	return answer, err
}

func (a *testAgent) mustAdd(r AddRequest) AddAnswer {
	a.t.Helper()
	answer, err := a.add(r)
	if err != nil {
		a.t.Fatalf("adding %s: %v", r.ContainerID, err)
	}
	return answer
}

func (a *testAgent) mustDel(r AddRequest) {
	a.t.Helper()
	if err := a.call(PathDel, DelRequest{r.ContainerID, r.IfName}, new(DelAnswer)); err != nil {
		a.t.Fatalf("deleting %s: %v", r.ContainerID, err)
	}
}

// settle waits for the DELs that were answered and aren't done.
func (a *testAgent) settle() {
	a.t.Helper()
	eventually(a.t, "what leaves", func() bool {
		a.server.busy.mu.Lock()
		defer a.server.busy.mu.Unlock()
		return len(a.server.busy.held) == 0
	})
}

// expect compares what there is of attachments, in memory, on disk and in the enforcement, and that their addresses are taken.
func (a *testAgent) expect(ids ...string) {
	a.t.Helper()
	a.settle()
	var have []string
	taken := 0
	for _, attachment := range a.server.Attachments() {
		have = append(have, attachment.ID())
		taken += len(attachment.Addresses)
	}
	onDisk, bad, _ := a.server.records.readAll()
	var recorded []string
	for _, attachment := range onDisk {
		recorded = append(recorded, attachment.ID())
	}
	for what, got := range map[string][]string{"attachments": have, "records": recorded, "enforced": a.enforcer.ids()} {
		if !slices.Equal(got, ids) {
			a.t.Errorf("%s: %q, want %q", what, got, ids)
		}
	}
	if len(bad) > 0 {
		a.t.Errorf("bad records: %v", bad)
	}
	if l, err := a.server.records.readLedger(); err != nil || len(l.inUse()) != taken {
		a.t.Errorf("taken %v and %v, want %d addresses", l.inUse(), err, taken)
	}
	entries, err := os.ReadDir(a.server.records.dir())
	if err != nil || len(entries) != len(ids) {
		a.t.Errorf("files %v and %v, want %d", entries, err, len(ids))
	}
}

func requestFor(container, pod string) AddRequest {
	return AddRequest{ContainerID: container, IfName: "eth0", PodNamespace: "dev", PodName: pod, PodUID: "uid-" + pod}
}

type testClock struct {
	mu  sync.Mutex
	now time.Duration
}

func (c *testClock) Now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += d
}

type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logText) add(prefix, args string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(&l.text, prefix, args)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// mustFail checks the specification's code of an error and what it says.
func mustFail(t testing.TB, err error, code uint, parts ...string) {
	t.Helper()
	known := new(types.Error)
	if !errors.As(err, &known) || known.Code != code {
		t.Errorf("got %v (%+v), want code %d", err, known, code)
		return
	}
	for _, part := range parts {
		if !strings.Contains(known.Error(), part) {
			t.Errorf("got %q, want it to say %q", known, part)
		}
	}
}

// eventually asks until the answer is yes.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := poll(ctx, func() (bool, error) { return done(), nil }); err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}

func addressText(prefixes []netip.Prefix) string { return strings.Trim(fmt.Sprint(prefixes), "[]") }
