package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
	"github.com/sluice-net/sluice/test/testdisk"
)

// toldEvents collects what a server tells.
type toldEvents struct {
	mu  sync.Mutex
	all []string
}

func (t *toldEvents) add(kind string) func(reason, message string) {
	return func(reason, message string) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.all = append(t.all, kind+" "+reason+": "+message)
	}
}

func (t *toldEvents) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.all, "\n")
}

// expect compares what was told with how each of it should begin.
func (t *toldEvents) expect(tb testing.TB, want ...string) {
	tb.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.EqualFunc(t.all, want, strings.HasPrefix) {
		tb.Errorf("told\n%s\nwant\n%s", strings.Join(t.all, "\n"), strings.Join(want, "\n"))
	}
}

func newAgentOn(t *testing.T, d *testdisk.Disk) (*testAgent, *toldEvents) {
	t.Helper()
	events := &toldEvents{}
	a := makeAgent(t, []func(*Options){func(o *Options) {
		o.OnProblem, o.OnSolved = events.add("Warning"), events.add("Normal")
	}})
	a.StateDir = d.Dir()
	a.Socket = filepath.Join(d.Dir(), cni.SocketName)
	a.Start()
	a.server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/29"))
	a.becomesReady()
	return a, events
}

// TestBadDisk: while the state directory can't be written, ADD fails retryably and says why, DEL
// succeeds, pods that run keep what they have, and no address is given twice; once it can, all goes
// on by itself.
func TestBadDisk(t *testing.T) {
	t.Parallel()
	for _, fault := range testdisk.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			d := testdisk.New(t)
			a, events := newAgentOn(t, d)
			kept := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
			a.MustAdd(cnitest.RequestFor("c2", "pod-b"))
			a.Expect("c1/eth0", "c2/eth0")
			fault.Set(d, true)
			a.server.beat() // one that was under way may have left room
			fault.Set(d, true)

			_, err := a.Add(cnitest.RequestFor("c3", "pod-c"))
			cnitest.MustFail(t, err, types.ErrTryAgainLater, "the pod can't be recorded",
				"addresses.json", fault.Says)
			if calls := a.Enforcer.CallText(); strings.Contains(calls, "c3") {
				t.Errorf("a pod without a record was attached: %s", calls)
			}
			a.MustDel(cnitest.RequestFor("c2", "pod-b"))
			a.Settle()
			if ids := a.Enforcer.IDs(); len(ids) != 1 || ids[0] != "c1/eth0" {
				t.Errorf("enforced are %q, want c1 alone", ids)
			}
			if got := a.server.Stats(); got.Attachments != 1 || !got.StateFailing {
				t.Errorf("the figures are %+v, want 1 attachment, and that the state fails", got)
			}
			fault.Set(d, true) // what DEL removed made room
			a.server.beat()
			a.server.beat()
			want := "Warning StateNotWritten: the state directory " + d.Dir() +
				" can't be written, so that new pods don't start: "
			if text := events.text(); !strings.HasPrefix(text, want) ||
				!strings.Contains(text, fault.Says) || strings.Count(text, "\n") > 0 {
				t.Errorf("told %q, want once %q", text, want)
			}

			fault.Set(d, false)
			a.server.Reap(t.Context()) // as it does every few seconds
			a.server.beat()            // likewise
			a.Expect("c1/eth0")
			if a.server.Stats().StateFailing {
				t.Error("the state still fails")
			}
			if text := events.text(); !strings.HasSuffix(text,
				"Normal StateWritten: the state directory "+d.Dir()+" is written again") {
				t.Errorf("told %q, and not that it is over", text)
			}
			a.Clock.Advance(defaultCoolDown)
			have := map[netip.Addr]bool{kept.Addresses[0].Addr(): true}
			for i := range 5 { // all others of a /29
				got := a.MustAdd(cnitest.RequestFor(fmt.Sprint("d", i), fmt.Sprint("pod-d", i))).
					Addresses[0].Addr()
				if have[got] {
					t.Errorf("%s is given twice", got)
				}
				have[got] = true
			}
		})
	}
}

// TestRecordStays: one record that can't be removed is told once, and its attachment is taken out
// once; new pods start, what else goes wrong is told, and once the record can be removed its
// addresses are free.
func TestRecordStays(t *testing.T) {
	t.Parallel()
	events := &toldEvents{}
	a := newAgent(t, func(o *Options) {
		o.OnProblem, o.OnSolved = events.add("Warning"), events.add("Normal")
	})
	lost := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	freeRecord := a.inTheWay(a.server.records.Path("c1", "eth0"))
	a.MustDel(cnitest.RequestFor("c1", "pod-a"))
	a.Settle()
	want := []string{"Warning StateNotWritten: a record of a pod that is gone can't be removed " +
		"from the state directory "}
	again := func() {
		t.Helper()
		for range 3 {
			a.server.Reap(t.Context())
			a.server.beat()
		}
		events.expect(t, want...)
		if !a.server.Stats().StateFailing {
			t.Error("the figures don't show that the record stays")
		}
	}
	again()
	got := a.MustAdd(cnitest.RequestFor("c2", "pod-b"))
	if slices.Equal(got.Addresses, lost.Addresses) {
		t.Errorf("%v are given while their record is there", got.Addresses)
	}
	freeHeartbeat := a.inTheWay(cni.HeartbeatPath(a.StateDir))
	want = append(want, "Warning StateNotWritten: the state directory "+a.StateDir+
		" can't be written, so that new pods don't start: ")
	again()
	freeHeartbeat()
	want = append(want, "Normal StateWritten: the state directory "+a.StateDir+" is written again")
	again()
	if calls := a.Enforcer.CallText(); strings.Count(calls, "detach c1/eth0") != 1 {
		t.Errorf("taken out more than once: %s", calls)
	}
	text := a.Log.String()
	if strings.Count(text, "A record of a pod that is gone can't be removed") != 1 {
		t.Errorf("logged other than once:\n%s", text)
	}

	freeRecord()
	cnitest.Eventually(t, "the end", func() bool {
		a.server.Reap(t.Context()) // leaves alone what another is at
		a.server.beat()
		return !a.server.Stats().StateFailing
	})
	events.expect(t,
		append(want, "Normal StateWritten: the records of pods that are gone are removed again")...)
	a.Expect("c2/eth0")
}

// inTheWay puts something in a file's place that can be neither removed nor replaced, until free.
func (a *testAgent) inTheWay(path string) (free func()) {
	a.T.Helper()
	a.betweenBeats(func() {
		if err := errors.Join(os.Remove(path),
			os.MkdirAll(filepath.Join(path, "full"), 0o700)); err != nil {
			a.T.Fatal(err)
		}
	})
	return func() {
		a.betweenBeats(func() {
			if err := os.RemoveAll(path); err != nil {
				a.T.Fatal(err)
			}
		})
	}
}

// TestTroubleBeginsDuringBeat: a beat doesn't end what began after it looked; the next one does.
func TestTroubleBeginsDuringBeat(t *testing.T) {
	t.Parallel()
	events := &toldEvents{}
	var begins func()
	server := newServerOn(t, events, func(name string) {
		if name == "looked" && begins != nil {
			begins()
		}
	})
	server.note(troubleRecord, unix.ENOSPC)
	begins = func() { server.note(troubleRecord, unix.ENOSPC) }
	server.beat()
	events.expect(t, "Warning StateNotWritten")
	begins = nil
	server.beat()
	events.expect(t, "Warning StateNotWritten", "Normal StateWritten")

	begins = func() { server.note(troubleRecord, unix.ENOSPC) } // one that it hasn't looked for
	server.beat()
	events.expect(t, "Warning StateNotWritten", "Normal StateWritten", "Warning StateNotWritten")
}

// TestSocketStaysBroken: a beat between two tries to make the socket doesn't tell that the trouble
// is over.
func TestSocketStaysBroken(t *testing.T) {
	t.Parallel()
	events := &toldEvents{}
	server := newServerOn(t, events, nil)
	server.noteSocket(unix.EROFS)
	var tries sync.WaitGroup
	tries.Go(func() {
		for range 100_000 {
			server.noteSocket(unix.EROFS)
		}
	})
	for range 100_000 {
		server.noteBeat(server.dir.begin(), nil)
	}
	tries.Wait()
	events.expect(t, "Warning StateNotWritten")
	server.noteSocket(nil)
	server.noteBeat(server.dir.begin(), nil)
	events.expect(t, "Warning StateNotWritten", "Normal StateWritten")
}

// newServerOn makes a server that doesn't run.
func newServerOn(t *testing.T, events *toldEvents, step func(string)) *Server {
	t.Helper()
	server, err := New(Options{
		Socket: "/s", StateDir: t.TempDir(), Enforcer: &cnitest.Enforcer{},
		NetNS: cnitest.NoNetNS{}, step: step,
		OnProblem: events.add("Warning"), OnSolved: events.add("Normal"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// TestStartOnBadDisk: an agent that starts on a directory that can't be written knows its pods,
// serves what it can, and the rest once it can.
func TestStartOnBadDisk(t *testing.T) {
	t.Parallel()
	for _, fault := range testdisk.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			d := testdisk.New(t)
			a, events := newAgentOn(t, d)
			kept := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
			a.Stop()
			fault.Set(d, true)
			server, err := New(Options{
				Socket: a.Socket, StateDir: a.StateDir, Enforcer: a.Enforcer,
				NetNS: cnitest.NoNetNS{}, Now: a.Clock.Now,
				OnProblem: events.add("Warning"), OnSolved: events.add("Normal"),
			})
			if err != nil {
				t.Fatalf("it doesn't start: %v", err)
			}
			all := server.Attachments()
			if len(all) != 1 || kept.Addresses[0].Addr() != all[0].Addresses[0] {
				t.Errorf("it knows %v, want c1", all)
			}
			server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/29"))
			server.SetDatapathReady(true, "")
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- server.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}()
			cnitest.Eventually(t, "the Event", func() bool {
				return strings.Contains(events.text(), "Warning StateNotWritten")
			})
			fault.Set(d, false)
			cnitest.Eventually(t, "ADD", func() bool {
				_, err := a.Add(cnitest.RequestFor("c2", "pod-b"))
				return err == nil
			})
			server.beat()
			if text := events.text(); !strings.Contains(text, "Normal StateWritten") {
				t.Errorf("told %q, and not that it is over", text)
			}
		})
	}
}

// TestUnreadableRecords: without its records an agent would take every pod of the node for gone.
func TestUnreadableRecords(t *testing.T) {
	t.Parallel()
	stateDir := t.TempDir()
	cnitest.WriteFile("")(t, filepath.Join(stateDir, "attachments"))
	_, err := New(Options{Socket: "/s", StateDir: stateDir, Enforcer: &cnitest.Enforcer{}})
	if err == nil {
		t.Error("it starts without its records")
	}
}

// betweenBeats runs f while the agent writes neither its heartbeat nor the ledger.
func (a *testAgent) betweenBeats(f func()) {
	a.server.dir.writing.Lock()
	defer a.server.dir.writing.Unlock()
	f()
}

// TestStatusOnBadDisk: an agent that can't tell the plugin by its file that it lives answers; of a
// node that never was ready, not well.
func TestStatusOnBadDisk(t *testing.T) {
	t.Parallel()
	d := testdisk.New(t)
	a, _ := newAgentOn(t, d)
	a.betweenBeats(func() {
		a.Age(cni.MaxSilence + time.Second)
		d.ReadOnly(true)
	})
	if err := a.pluginStatus(); err != nil {
		t.Errorf("the agent lives: %v", err)
	}
	a.Stop()
	cnitest.MustFail(t, a.pluginStatus(), cni.CodeNotAvailable, "silent for ")

	d = testdisk.New(t)
	d.Full(true)
	b := makeAgent(t, nil)
	b.StateDir, b.Socket = d.Dir(), filepath.Join(d.Dir(), cni.SocketName)
	b.Start()
	cnitest.MustFail(t, b.pluginStatus(), cni.CodeNotAvailable, "the node can't take pods",
		"addresses.json", "no space left on device")
	d.Full(false)
	b.server.beat()
	b.becomesReady()
}

// TestSlowDisk: while a file is being written, however long that takes, those who decide about
// policy and the network don't wait, nor does who asks.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	writing, goOn := make(chan struct{}, 1), make(chan struct{})
	var armed, waiting sync.Map
	a := newAgent(t, func(o *Options) {
		o.step = func(name string) {
			if _, is := armed.Load(name); is {
				select {
				case writing <- struct{}{}:
				default:
				}
				<-goOn
			}
		}
	})
	a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	a.Settle()
	armed.Store("writing", true)
	added := make(chan error, 1)
	go func() { _, err := a.Add(cnitest.RequestFor("c2", "pod-b")); added <- err }()
	<-writing
	for name, do := range map[string]func(){
		"a Node's addresses": func() {
			a.server.SetNodeAddresses([]netip.Addr{netip.MustParseAddr("192.0.2.1")})
		},
		"a Node's podCIDRs": func() { a.server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/24")) },
		"the network": func() {
			a.server.SetDatapathReady(true, "")
			a.server.SetMTU(1400)
			a.server.SetTunnelPort(1)
		},
		"the attachments": func() { a.server.Attachments() },
		"the figures":     func() { a.server.Stats() },
		"CHECK": func() {
			_, _ = a.server.check(t.Context(), cni.CheckRequest{ContainerID: "c1", IfName: "eth0"})
		},
		"STATUS of the agent": func() { _, _ = a.server.status(t.Context(), cni.StatusRequest{}) },
		"DEL of another pod": func() {
			_ = a.Call(cni.PathDel, cni.DelRequest{ContainerID: "c1", IfName: "eth0"},
				new(cni.DelAnswer))
		},
	} {
		waiting.Store(name, true)
		go func() { do(); waiting.Delete(name) }()
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(cnitest.Patience / 2); count(&waiting) > 0 &&
		time.Now().Before(deadline); {
		<-tick.C
	}
	waiting.Range(func(name, _ any) bool {
		t.Errorf("%s waits for the disk", name)
		return true
	})
	armed.Clear()
	close(goOn)
	if err := <-added; err != nil {
		t.Error(err)
	}
	a.Expect("c2/eth0")
}

func count(of *sync.Map) (n int) {
	of.Range(func(any, any) bool { n++; return true })
	return n
}
