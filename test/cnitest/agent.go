package cnitest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/sluice-net/sluice/cni"

	"github.com/sluice-net/sluice/test/needroot"
)

// Server is the part of a *server.Server that an Agent needs.
type Server interface {
	Run(context.Context) error
	SetPodCIDRs([]netip.Prefix)
	SetDatapathReady(ready bool, reason string)
	Attachments() []cni.Attachment
}

// Agent is a server in a directory of the test's own, and what can be done to it.
type Agent struct {
	T        testing.TB
	StateDir string
	Socket   string
	Enforcer *Enforcer
	IsBare   bool // Start gives it nothing of the node
	Clock    *Clock
	Log      *Log
	Stop     func() // until then it runs

	make   func() Server
	server Server
}

// NewAgent makes one that doesn't run yet. Start calls makeServer each time.
func NewAgent(t testing.TB, makeServer func() Server) *Agent {
	t.Helper()
	needroot.SkipOthers(t)
	directory := t.TempDir()
	return &Agent{
		T:        t,
		StateDir: directory,
		Socket:   filepath.Join(directory, cni.SocketName),
		Enforcer: &Enforcer{},
		Clock:    &Clock{now: Noon},
		Log:      &Log{},
		make:     makeServer,
	}
}

// Start makes a new server on the same state, with podCIDRs, ready, and runs it.
func (a *Agent) Start() {
	a.T.Helper()
	server := a.make()
	if !a.IsBare {
		server.SetPodCIDRs(Prefixes("10.1.0.0/24", "fd00:1::/64"))
		server.SetDatapathReady(true, "")
	}
	a.server = server
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	a.Stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			a.T.Errorf("Run: %v", err)
		}
	})
	a.T.Cleanup(a.Stop)
	Eventually(a.T, "the socket", func() bool {
		return cni.IsAnswered(context.Background(), a.Socket)
	})
}

// Call asks the agent as the plugin does.
func (a *Agent) Call(path string, request, answer any) error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return cni.NewClient(a.Socket).Call(ctx, path, request, answer)
}

// Add asks for an ADD.
func (a *Agent) Add(r cni.AddRequest) (cni.AddAnswer, error) {
	var answer cni.AddAnswer
	err := a.Call(cni.PathAdd, r, &answer)
	return answer, err
}

// MustAdd is Add that succeeds.
func (a *Agent) MustAdd(r cni.AddRequest) cni.AddAnswer {
	a.T.Helper()
	answer, err := a.Add(r)
	if err != nil {
		a.T.Fatalf("adding %s: %v", r.ContainerID, err)
	}
	return answer
}

// MustDel asks for the DEL of what a request asked for, which succeeds.
func (a *Agent) MustDel(r cni.AddRequest) {
	a.T.Helper()
	if err := a.Call(cni.PathDel, cni.DelRequest{ContainerID: r.ContainerID, IfName: r.IfName},
		new(cni.DelAnswer)); err != nil {
		a.T.Fatalf("deleting %s: %v", r.ContainerID, err)
	}
}

// Expect waits until there is so much of attachments, in memory, on disk and in the enforcement,
// and their addresses are taken.
func (a *Agent) Expect(ids ...string) {
	a.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		differences := a.Differences(ids)
		if len(differences) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			a.T.Errorf("want %q: %s", ids, strings.Join(differences, "; "))
			return
		}
	}
}

// Differences says in what there is something else of attachments than Expect wants.
func (a *Agent) Differences(ids []string) (list []string) {
	differs := func(format string, args ...any) {
		list = append(list, fmt.Sprintf(format, args...))
	}
	var have []string
	taken := 0
	for _, attachment := range a.server.Attachments() {
		have = append(have, attachment.ID())
		taken += len(attachment.Addresses)
	}
	records := cni.OpenRecords(a.StateDir)
	onDisk, bad, _ := records.ReadAll()
	var recorded []string
	for _, attachment := range onDisk {
		recorded = append(recorded, attachment.ID())
	}
	for what, got := range map[string][]string{"attachments": have, "records": recorded,
		"enforced": a.Enforcer.IDs()} {
		if !slices.Equal(got, ids) {
			differs("%s: %q", what, got)
		}
	}
	if len(bad) > 0 {
		differs("bad records: %v", bad)
	}
	if l, err := records.ReadLedger(); err != nil || len(InUse(l)) != taken {
		differs("taken %v and %v, want %d addresses", InUse(l), err, taken)
	}
	entries, err := os.ReadDir(records.Dir())
	if err != nil || len(entries) != len(ids) {
		differs("files %v and %v, want %d", entries, err, len(ids))
	}
	return list
}

// Age makes the agent's last heartbeat older.
func (a *Agent) Age(by time.Duration) {
	a.T.Helper()
	h, err := cni.ReadHeartbeat(a.StateDir)
	if err != nil || h.BootID == "" {
		a.T.Fatalf("there is no heartbeat: %v and %v", h, err)
	}
	h.Beat -= by
	if err := cni.OpenRecords(a.StateDir).WriteHeartbeat(h); err != nil {
		a.T.Fatal(err)
	}
}

// Status asks a plugin as a runtime does.
func (a *Agent) Status(status func(*skel.CmdArgs) error) error {
	return status(&skel.CmdArgs{StdinData: a.Config("1.1.0")})
}

// Config is the network configuration that a runtime gives to a plugin.
func (a *Agent) Config(version string) []byte {
	return fmt.Appendf(nil,
		`{"cniVersion":%q,"name":"sluice","type":"sluice","socket":%q,"stateDir":%q}`, version,
		a.Socket, a.StateDir)
}

// Clock stands still until a test moves it on.
type Clock struct {
	mu  sync.Mutex
	now time.Duration
}

// Now is the time since the boot.
func (c *Clock) Now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance lets time pass.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += d
}

// Log is what was logged. Its Add is for funcr.New.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

// Add adds a line.
func (l *Log) Add(prefix, args string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(&l.text, prefix, args)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// LeaveStaleSocket is what a killed server leaves.
func LeaveStaleSocket(t testing.TB, path string) {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
}
