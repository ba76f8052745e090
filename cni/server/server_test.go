package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

func TestAddAnswer(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.server.SetMTU(1450)
	a.server.SetNodeAddresses(cnitest.Addrs("192.0.2.1", "192.0.2.2", "2001:db8::1"))
	got := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	want := cni.AddAnswer{
		Addresses: cnitest.Prefixes("10.1.0.1/32", "fd00:1::1/128"), Interface: "slupbcb64b37750",
		HostMAC: "a2:1f:d2:d3:5f:7c", PodMAC: "ea:93:8c:71:71:ad",
		MTU: 1450, NodeAddresses: cnitest.Addrs("192.0.2.1", "2001:db8::1"),
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(cnitest.SameAddr),
		cmp.Comparer(samePrefix)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantAttachment := cnitest.NewAttachment("c1", "pod-a", "10.1.0.1", "fd00:1::1")
	wantAttachment.PodUID = "uid-pod-a"
	if diff := cmp.Diff([]cni.Attachment{wantAttachment}, a.server.Attachments(),
		cmp.Comparer(cnitest.SameAddr)); diff != "" {
		t.Errorf("attachments (-want +got):\n%s", diff)
	}
	a.Expect("c1/eth0")
	a.MustDel(cnitest.RequestFor("c1", "pod-a"))
	a.MustDel(cnitest.RequestFor("c1", "pod-a"))
	a.Expect()
}

func samePrefix(a, b netip.Prefix) bool { return a == b }

func TestAddIsIdempotent(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	first := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	a.server.SetMTU(1400)
	second := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	if cnitest.AddressText(first.Addresses) != cnitest.AddressText(second.Addresses) ||
		second.MTU != 1400 {
		t.Errorf("first %v, then %v", first, second)
	}
	a.Expect("c1/eth0")
	other := cnitest.RequestFor("c1", "pod-a")
	other.IfName = "net1"
	third := a.MustAdd(other)
	if cnitest.AddressText(first.Addresses) == cnitest.AddressText(third.Addresses) ||
		first.Interface == third.Interface {
		t.Errorf("two interfaces of a container share something: %v, %v", first, third)
	}
	a.Expect("c1/eth0", "c1/net1")
	_, err := a.Add(cnitest.RequestFor("c1", "pod-b"))
	cnitest.MustFail(t, err, types.ErrInvalidEnvironmentVariables,
		"the container is of another pod", "dev/pod-a")
	a.Expect("c1/eth0", "c1/net1")
}

func TestNoPodCIDR(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.server.SetPodCIDRs(nil)
	_, err := a.Add(cnitest.RequestFor("c1", "pod-a"))
	cnitest.MustFail(t, err, types.ErrTryAgainLater, "no address for the pod",
		"the node has no podCIDR yet")
	a.Expect()
	a.server.SetPodCIDRs(cnitest.Prefixes("10.2.0.0/24"))
	got := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	if cnitest.AddressText(got.Addresses) != "10.2.0.1/32" {
		t.Errorf("got %v", got)
	}
	var status cni.StatusAnswer
	if err := a.Call(cni.PathStatus, cni.StatusRequest{}, &status); err != nil ||
		status.Attachments != 1 || cnitest.AddressText(status.PodCIDRs) != "10.2.0.0/24" {
		t.Errorf("status %v and %v", status, err)
	}
}

func TestExhausted(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.server.SetPodCIDRs(cnitest.Prefixes("10.2.0.0/30"))
	a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	a.MustAdd(cnitest.RequestFor("c2", "pod-b"))
	_, err := a.Add(cnitest.RequestFor("c3", "pod-c"))
	cnitest.MustFail(t, err, types.ErrTryAgainLater,
		"no free address in 10.2.0.0/30: 2 of 2 in use")
	a.MustDel(cnitest.RequestFor("c1", "pod-a"))
	a.Settle()
	_, err = a.Add(cnitest.RequestFor("c3", "pod-c"))
	cnitest.MustFail(t, err, types.ErrTryAgainLater,
		"2 of 2 in use or cooling down, the first of 1 that cool down for 1m0s more")
	a.Clock.Advance(defaultCoolDown)
	got := a.MustAdd(cnitest.RequestFor("c3", "pod-c"))
	if cnitest.AddressText(got.Addresses) != "10.2.0.1/32" {
		t.Errorf("got %v", got)
	}
	a.Expect("c2/eth0", "c3/eth0")
}

// TestFailedAttachLeavesNothing: and takes no address out of service, as none was used.
func TestFailedAttachLeavesNothing(t *testing.T) {
	t.Parallel()
	a := newAgent(t, func(o *Options) { o.addTimeout = 100 * time.Millisecond })
	for name, c := range map[string]struct {
		attach func(context.Context, cni.Attachment) error
		code   uint
		says   string
	}{
		"refused": {func(context.Context, cni.Attachment) error {
			return errors.New("pod isn't known")
		}, 11, "pod isn't known"},
		"own code": {func(context.Context, cni.Attachment) error {
			return types.NewError(7, "bad", "thing")
		}, 7, "bad; thing"},
		"too long": {func(ctx context.Context, _ cni.Attachment) error {
			<-ctx.Done()
			return ctx.Err()
		}, 11, "dev/pod-a isn't in the kernel yet"},
		"panics": {func(context.Context, cni.Attachment) error { panic("oops") }, 999,
			"the agent failed"},
		"is a lie": {func(ctx context.Context, _ cni.Attachment) error { <-ctx.Done(); return nil },
			11, "deadline exceeded"},
	} {
		a.Enforcer.SetAttach(c.attach)
		_, err := a.Add(cnitest.RequestFor("c1", "pod-a"))
		cnitest.MustFail(t, err, c.code, c.says)
		if t.Failed() {
			t.Fatal(name)
		}
		a.Expect()
		if l := a.server.addresses.ledger(); len(l.Freed) > 0 {
			t.Errorf("%s: %v cool down", name, l.Freed)
		}
	}
	a.Enforcer.SetAttach(nil)
	cnitest.Eventually(t, "ADD in so little time", func() bool {
		_, err := a.Add(cnitest.RequestFor("c1", "pod-a"))
		return err == nil
	})
	a.Expect("c1/eth0")
	if text := a.Log.String(); !strings.Contains(text, "panic: oops") {
		t.Errorf("the log says only:\n%s", text)
	}
}

// TestImpatientPlugin: a plugin that is gone before its policy came has its ADD undone.
func TestImpatientPlugin(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	waiting := make(chan struct{})
	a.Enforcer.SetAttach(func(ctx context.Context, _ cni.Attachment) error {
		close(waiting)
		<-ctx.Done()
		return nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-waiting; cancel() }()
	err := cni.NewClient(a.Socket).
		Call(ctx, cni.PathAdd, cnitest.RequestFor("c1", "pod-a"), new(cni.AddAnswer))
	if !errors.Is(err, cni.ErrNoAgent) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	cnitest.Eventually(t, "the ADD to be undone", func() bool {
		return len(a.server.Attachments()) == 0
	})
	a.Expect()
}

// TestDetachFails: the address isn't free while something may still refer to it.
func TestDetachFails(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	first := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	a.Enforcer.SetDetach(func(string) error { return errors.New("kernel says no") })
	a.MustDel(cnitest.RequestFor("c1", "pod-a"))
	cnitest.Eventually(t, "the failure", func() bool {
		return strings.Contains(a.Log.String(), "kernel says no")
	})
	if got := a.server.Attachments(); len(got) != 0 {
		t.Errorf("still attached: %v", got)
	}
	if l := a.server.addresses.ledger(); len(cnitest.InUse(l)) != 2 {
		t.Errorf("taken are %v, want the two of %v", cnitest.InUse(l), first.Addresses)
	}
	_, err := a.Add(cnitest.RequestFor("c1", "pod-a"))
	cnitest.MustFail(t, err, types.ErrTryAgainLater, "kernel says no")
	a.server.Reap(t.Context())
	if n := len(a.server.unfinished()); n != 1 {
		t.Errorf("%d attachments wait for the kernel, want 1", n)
	}
	a.Enforcer.SetDetach(nil)
	a.server.Reap(t.Context())
	a.Expect()
	a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	a.Expect("c1/eth0")
}

func TestNewSandboxOfAPodSupersedesTheOld(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	first := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	second := a.MustAdd(cnitest.RequestFor("c2", "pod-a"))
	if first.Interface != second.Interface || first.HostMAC == second.HostMAC ||
		cnitest.AddressText(first.Addresses) == cnitest.AddressText(second.Addresses) {
		t.Errorf("first %v, then %v", first, second)
	}
	a.Expect("c2/eth0")
	got, want := a.Enforcer.CallText(), "attach c1/eth0, detach c1/eth0, attach c2/eth0"
	if got != want {
		t.Errorf("the enforcer saw %s, want %s", got, want)
	}
	a.MustDel(cnitest.RequestFor("c1", "pod-a")) // comes late
	a.Expect("c2/eth0")
}

// TestTwoSandboxesAtOnce: none waits for the other for ever, and one is left in the end.
func TestTwoSandboxesAtOnce(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	var done sync.WaitGroup
	for _, container := range []string{"c1", "c2", "c3", "c4"} {
		done.Go(func() {
			for range 20 {
				// Those who come at a bad moment are told to try again, as runtimes do.
				if _, err := a.Add(cnitest.RequestFor(container, "pod-a")); err != nil {
					cnitest.MustFail(t, err, types.ErrTryAgainLater,
						"an older sandbox of the pod is being worked on")
				}
			}
		})
	}
	done.Wait()
	last := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	a.Expect("c1/eth0")
	if len(last.Addresses) != 2 {
		t.Errorf("got %v", last)
	}
}

func TestHundredAddsAtOnce(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	var release sync.WaitGroup
	release.Add(100)
	a.Enforcer.SetAttach(func(context.Context, cni.Attachment) error {
		release.Done()
		release.Wait() // until all hundred are here
		return nil
	})
	var mu sync.Mutex
	seen := map[netip.Prefix]string{}
	var done sync.WaitGroup
	for i := range 100 {
		done.Go(func() {
			container := fmt.Sprintf("c%03d", i)
			answer, err := a.Add(cnitest.RequestFor(container, "pod-"+container))
			if err != nil {
				t.Errorf("%s: %v", container, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, address := range answer.Addresses {
				if other, ok := seen[address]; ok {
					t.Errorf("%s and %s both have %s", container, other, address)
				}
				seen[address] = container
			}
		})
	}
	done.Wait()
	if len(seen) != 200 || len(a.server.Attachments()) != 100 {
		t.Errorf("%d addresses, %d attachments", len(seen), len(a.server.Attachments()))
	}
}

// TestRestart: a server that is killed at any time is followed by one that knows what was attached,
// and what rests.
func TestRestart(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	first := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	a.MustAdd(cnitest.RequestFor("c2", "pod-b"))
	a.MustDel(cnitest.RequestFor("c2", "pod-b"))
	a.Settle()
	before := a.server.Attachments()
	a.Stop()
	cnitest.WriteFile("{")(t, filepath.Join(a.StateDir, "attachments", "bad@eth0.json"))
	a.Start()
	diff := cmp.Diff(before, a.server.Attachments(), cmp.Comparer(cnitest.SameAddr))
	if diff != "" {
		t.Errorf("attachments before and after:\n%s", diff)
	}
	if text := a.Log.String(); !strings.Contains(text, "bad@eth0.json") {
		t.Errorf("the log doesn't name the bad record:\n%s", text)
	}
	again := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	if cnitest.AddressText(again.Addresses) != cnitest.AddressText(first.Addresses) {
		t.Errorf("first %v, after the restart %v", first, again)
	}
	a.server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/30"))
	_, err := a.Add(cnitest.RequestFor("c3", "pod-c"))
	cnitest.MustFail(t, err, types.ErrTryAgainLater, "2 of 2 in use or cooling down")
}

// TestKilledBeforeTheAnswer: the address stays the container's, whose next ADD gets it.
func TestKilledBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.MustAdd(cnitest.RequestFor("c0", "pod-0"))
	state := filepath.Join(t.TempDir(), "as-killed")
	a.Enforcer.SetAttach(func(context.Context, cni.Attachment) error {
		// what is on disk at this moment
		return os.CopyFS(state, os.DirFS(a.StateDir+"/attachments"))
	})
	first := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	a.Enforcer.SetAttach(nil)
	a.Stop()
	err := errors.Join(os.RemoveAll(a.StateDir+"/attachments"),
		os.CopyFS(a.StateDir+"/attachments", os.DirFS(state)))
	if err != nil {
		t.Fatal(err)
	}
	a.Start()
	second := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	if cnitest.AddressText(first.Addresses) != cnitest.AddressText(second.Addresses) {
		t.Errorf("first %v, then %v", first, second)
	}
	third := a.MustAdd(cnitest.RequestFor("c2", "pod-b"))
	if cnitest.AddressText(third.Addresses) == cnitest.AddressText(first.Addresses) {
		t.Errorf("two pods have %v", third.Addresses)
	}
}

// TestRecordGone: a plugin that got no answer to DEL removes the record.
func TestRecordGone(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	a.MustAdd(cnitest.RequestFor("c2", "pod-b"))
	if err := a.server.records.Remove("c1", "eth0"); err != nil {
		t.Fatal(err)
	}
	a.server.Reap(context.Background())
	a.Expect("c2/eth0")
	if l := a.server.addresses.ledger(); len(l.Freed) != 2 {
		t.Errorf("cooling down: %v, want the two of c1", l.Freed)
	}

	// The same while the server is away.
	a.Stop()
	if err := a.server.records.Remove("c2", "eth0"); err != nil {
		t.Fatal(err)
	}
	a.Enforcer.Forget()
	a.Start()
	a.Expect()
	if l := a.server.addresses.ledger(); len(l.Freed) != 4 {
		t.Errorf("cooling down: %v, want all four", l.Freed)
	}
}

func TestStopWhileAddsWait(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	waiting := make(chan struct{})
	a.Enforcer.SetAttach(func(ctx context.Context, _ cni.Attachment) error {
		close(waiting)
		<-ctx.Done()
		return ctx.Err()
	})
	failed := make(chan error, 1)
	go func() {
		_, err := a.Add(cnitest.RequestFor("c1", "pod-a"))
		failed <- err
	}()
	<-waiting
	a.Stop()
	cnitest.MustFail(t, <-failed, types.ErrTryAgainLater, "dev/pod-a isn't in the kernel yet")
	a.Expect()
}

func TestNewServerOptions(t *testing.T) {
	t.Parallel()
	if _, err := New(Options{Socket: "/s", StateDir: t.TempDir()}); err == nil {
		t.Error("a server without an enforcer")
	}
	file := filepath.Join(t.TempDir(), "file")
	cnitest.WriteFile("")(t, file)
	if _, err := New(Options{Socket: "/s", StateDir: file,
		Enforcer: &cnitest.Enforcer{}}); err == nil {
		t.Error("a server whose state directory is a file")
	}
}
