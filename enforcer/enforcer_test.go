package enforcer

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// onTable returns an Enforcer of a cluster of which nothing is known.
func onTable(table *table.Table, opts cluster.Options, cfg ruleset.Config,
	log logr.Logger) *Enforcer {
	return New(table, NewModel(opts, cfg), Options{Log: log})
}

// newEnforcer returns an Enforcer on a node of its own, not running yet, and a function that runs
// it until the test ends.
func newEnforcer(t *testing.T) (e *Enforcer, node *testnet.Node, run func()) {
	t.Helper()
	node = testnet.NewNode(t)
	table, err := table.Open(table.Options{NetNS: node.NSFd()})
	if err != nil {
		t.Fatal(err)
	}
	e = onTable(table, cluster.Options{Node: cases.NodeName}, ruleset.Config{}, testr.New(t))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-done
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	close(done) // until it runs
	return e, node, func() {
		done = make(chan struct{})
		go func() {
			defer close(done)
			if err := e.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
}

func testAttachment() cni.Attachment {
	return cni.Attachment{
		ContainerID: "c1", IfName: "eth0", PodNamespace: "dev", PodName: "web", PodUID: "u1",
		Interface: "slup00000000001",
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.9"), netip.MustParseAddr("fd00::9")},
	}
}

func testPod() policy.Pod {
	return policy.Pod{ID: selector.Pod{Namespace: "dev", Name: "web", UID: "u1"},
		Node: cases.NodeName}
}

func inTime(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

func TestAttachReturnsWhenThePolicyIsInTheKernel(t *testing.T) {
	t.Parallel()
	e, node, run := newEnforcer(t)
	attached := make(chan error)
	go func() {
		ctx, cancel := inTime(packetworld.Patience)
		defer cancel()
		attached <- e.Attach(ctx, testAttachment())
	}()
	if err := e.Ready(); err == nil {
		t.Error("ready before anything was written")
	}
	run()
	e.Update(func(c *Model) { c.SetPod(testPod()) })
	if err := <-attached; err != nil {
		t.Fatal(err)
	}
	if err := e.Ready(); err != nil {
		t.Error(err)
	}
	listing := node.Nft("list", "map", "inet", "sluice", packetworld.VethMap(policy.Ingress, "v4"))
	if !strings.Contains(listing, `10.244.1.9 . "slup00000000001" : accept`) {
		t.Errorf("Attach returned, but the kernel has\n%s", listing)
	}
	ctx, cancel := inTime(packetworld.Patience)
	defer cancel()
	if err := e.Detach(ctx, testAttachment().ID()); err != nil {
		t.Fatal(err)
	}
	if listing := node.Nft("list", "map", "inet", "sluice",
		packetworld.VethMap(policy.Ingress, "v4")); strings.Contains(listing, "slup") {
		t.Errorf("Detach returned, but the kernel has\n%s", listing)
	}
	if err := e.Detach(ctx, "unknown"); err != nil {
		t.Errorf("detaching what isn't there: %v", err)
	}
}

// TestAttachWaitsForAllPolicies: while there may be policies that the model doesn't have, no pod
// starts; and then it does once the kernel has what came meanwhile.
func TestAttachWaitsForAllPolicies(t *testing.T) {
	t.Parallel()
	e, node, run := newEnforcer(t)
	e.Update(func(m *Model) { m.SetPod(testPod()) })
	run()
	ctx, cancel := inTime(packetworld.Patience)
	defer cancel()
	if err := e.AwaitFirstCommit(ctx); err != nil {
		t.Fatal(err)
	}
	e.HoldPods(errors.New("the list is missing"))
	soon, cancel := inTime(100 * time.Millisecond)
	defer cancel()
	if err := e.Attach(soon, testAttachment()); err == nil ||
		!strings.Contains(err.Error(), "not all policies are known: the list is missing") {
		t.Fatalf("while policies are missing: %v", err)
	}
	if err := e.Enforced(testAttachment().ID()); err != nil {
		t.Errorf("control: what is known isn't enforced: %v", err)
	}
	deny, err := cases.RenderPolicy("dev/deny", `{podSelector: {}}`, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	e.Update(func(m *Model) { m.SetPolicy(policy.Parse(deny)) })
	e.ReleasePods()
	if err := e.Attach(ctx, testAttachment()); err != nil {
		t.Fatal(err)
	}
	if listing := node.Nft("list", "table", "inet", "sluice"); !strings.Contains(listing,
		"dev/deny") {
		t.Errorf("Attach returned, but the kernel has\n%s", listing)
	}
}

func TestAttachSaysWhyItCannot(t *testing.T) {
	t.Parallel()
	e, node, run := newEnforcer(t)
	ctx, cancel := inTime(50 * time.Millisecond)
	defer cancel()
	if err := e.Attach(ctx, testAttachment()); err == nil ||
		!strings.Contains(err.Error(), "dev/web with UID u1 isn't known") {
		t.Errorf("before the first write: %v", err)
	}
	run()
	ctx, cancel = inTime(50 * time.Millisecond)
	defer cancel()
	if err := e.Attach(ctx, testAttachment()); err == nil ||
		!strings.Contains(err.Error(), "dev/web with UID u1 isn't known") {
		t.Errorf("with an unknown pod: %v", err)
	}
	other := testPod()
	other.ID.UID = "u2" // the same name, another pod
	e.Update(func(c *Model) { c.SetPod(other) })
	ctx, cancel = inTime(50 * time.Millisecond)
	defer cancel()
	if err := e.Attach(ctx, testAttachment()); err == nil {
		t.Error("attached under another pod's policy")
	}
	listing := node.Nft("list", "table", "inet", "sluice")
	if strings.Contains(listing, "slup00000000001") {
		t.Errorf("the kernel knows it:\n%s", listing)
	}
}

// TestAdoptKeepsTheDispatch: an agent that starts again must not take away what the last one put
// there, not even for a moment.
func TestAdoptKeepsTheDispatch(t *testing.T) {
	t.Parallel()
	e, node, run := newEnforcer(t)
	e.Update(func(c *Model) { c.SetPod(testPod()) })
	run()
	ctx, cancel := inTime(packetworld.Patience)
	defer cancel()
	if err := e.Attach(ctx, testAttachment()); err != nil {
		t.Fatal(err)
	}
	before := node.Nft("list", "table", "inet", "sluice")

	table, err := table.Open(table.Options{NetNS: node.NSFd()})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	again := onTable(table, cluster.Options{Node: cases.NodeName}, ruleset.Config{}, testr.New(t))
	again.Adopt([]cni.Attachment{testAttachment()})
	again.Update(func(c *Model) { c.SetPod(testPod()) })
	if err := again.commit(ctx); err != nil {
		t.Fatal(err)
	}
	if after := node.Nft("list", "table", "inet", "sluice"); after != before {
		t.Errorf("the ruleset changed:\n%s", cmp.Diff(before, after))
	}
}
