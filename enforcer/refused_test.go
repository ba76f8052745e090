package enforcer

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/packetworld"
)

var dbKey = policy.Key{Namespace: "dev", Name: "db"}

// refusedKinds is an object of each kind that only dev/db needs.
var refusedKinds = []struct {
	name   string
	object func(w *enforcerWorld, o nft.Object) bool
	// closed are the flows that the policy allows and that don't pass now; open those that pass all
	// the same.
	closed, open []string
	pod          bool // it is about the pod, not about its policy
}{
	{
		"policy chain", func(_ *enforcerWorld, o nft.Object) bool {
			return o.Chain == packetworld.PolicyChain(dbKey, policy.Ingress)
		},
		slices.Concat(dbByPod, dbByBlock), nil, false,
	},
	{
		"profile", func(_ *enforcerWorld, o nft.Object) bool {
			return o.Chain == packetworld.ProfileChain(dbKey, policy.Ingress)
		},
		slices.Concat(dbByPod, dbByBlock), nil, false,
	},
	{
		"pod chain", func(_ *enforcerWorld, o nft.Object) bool {
			return strings.HasPrefix(o.Chain, "pod/dev/db/")
		},
		slices.Concat(dbByPod, dbByBlock), nil, true,
	},
	{
		"set of pods", func(_ *enforcerWorld, o nft.Object) bool {
			return strings.HasPrefix(o.Set, "pods/") && strings.Contains(o.Set, "app_") &&
				o.Element == nft.Element{}
		},
		dbByPod, dbByBlock, false,
	},
	{
		"set of ports", func(_ *enforcerWorld, o nft.Object) bool {
			return strings.HasPrefix(o.Set, "ports/") && o.Element == nft.Element{}
		},
		dbByPod, dbByBlock, false,
	},
	{
		"set of a block", func(_ *enforcerWorld, o nft.Object) bool {
			return strings.HasPrefix(o.Set, "block/") && o.Element == nft.Element{}
		},
		dbByBlock, dbByPod, false,
	},
	{
		"range of a block", func(_ *enforcerWorld, o nft.Object) bool {
			first, last := netip.MustParseAddr("192.0.2.0"), netip.MustParseAddr("192.0.2.19")
			return strings.HasPrefix(o.Set, "block/") && o.Element == nft.RangeElement(first, last)
		},
		dbByBlock, dbByPod, false,
	},
	{
		"key of the dispatch", func(w *enforcerWorld, o nft.Object) bool {
			h := w.Hosts["dev/db"]
			return o == elementOf(packetworld.VethMap(policy.Ingress, "v4"), h.Addr4(),
				h.Interface()) ||
				o == elementOf(packetworld.VethMap(policy.Ingress, "v6"), h.Addr6(), h.Interface())
		},
		slices.Concat(dbByPod, dbByBlock), nil, true,
	},
}

// TestOneRefusedObject: a refused object of each kind, from the first write on, closes its own pods
// only, is named, and comes back when the kernel takes it.
func TestOneRefusedObject(t *testing.T) {
	t.Parallel()
	for _, c := range refusedKinds {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newEnforcerWorld(t, table.Options{Own: true})
			w.spoil(func(o nft.Object) bool { return c.object(w, o) })
			w.run()
			w.Denied(slices.Concat(c.closed, dbDenied, restNot)...)
			w.Allowed(slices.Concat(c.open, rest)...)
			refusal := <-w.refusals
			switch {
			case c.pod && (len(refusal.Endpoints) != 1 || refusal.Endpoints[0].Pod.Name != "db"):
				t.Errorf("it names the pods %v", refusal.Endpoints)
			case !c.pod && !slices.Equal(refusal.Policies, []policy.Key{dbKey}):
				t.Errorf("it names the policies %v", refusal.Policies)
			case !errors.Is(refusal.Err, nft.ErrRefused):
				t.Errorf("the reason is %v", refusal.Err)
			}
			if w.e.Refused() == 0 {
				t.Error("no object counts as refused")
			}
			if enforced := w.e.Enforced(w.Hosts["dev/db"].Interface()) == nil; enforced == c.pod {
				t.Errorf("dev/db counts as enforced: %v", enforced)
			}

			// Others' changes go on.
			w.setPolicies(map[string]string{"ops/all": `{podSelector: {}}`})
			w.committed()
			w.Denied("dev/db > ops/probe tcp/80")
			w.Denied(c.closed...)

			w.spoil(nil)
			w.e.table.Retry()
			w.e.requestReadBack()
			w.until("the object to be taken again", func() bool {
				return len(w.e.table.LeftOut()) == 0
			})
			w.committed()
			w.until("the pod to be enforced", func() bool {
				return w.e.Enforced(w.Hosts["dev/db"].Interface()) == nil
			})
			w.until("nothing to count as refused", func() bool { return w.e.Refused() == 0 })
			w.Allowed(slices.Concat(dbByPod, dbByBlock)...)
			w.Denied(slices.Concat(dbDenied, restNot)...)
		})
	}
}

// TestRefusedEdit: rules that are refused leave nothing of the old ones, and another edit tries
// again.
func TestRefusedEdit(t *testing.T) {
	t.Parallel()
	w := newEnforcerWorld(t, table.Options{Own: true})
	w.run()
	w.Allowed(slices.Concat(dbByPod, dbByBlock, rest)...)
	w.spoil(func(o nft.Object) bool {
		return o.Chain == packetworld.PolicyChain(dbKey, policy.Ingress)
	})
	w.setPolicies(map[string]string{
		"dev/db":  `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 81}]}]}`,
		"ops/all": `{podSelector: {}}`,
	})
	w.committed()
	w.Denied(slices.Concat(dbByPod, dbByBlock, dbDenied, []string{"dev/db > ops/probe tcp/80"})...)
	w.spoil(nil)
	w.setPolicies(map[string]string{"dev/db": dbPolicy})
	w.committed()
	w.Allowed(slices.Concat(dbByPod, dbByBlock)...)
	w.Denied(dbDenied...)
}

// TestRefusedPodIsNotAttached: ADD fails with the reason, so that the runtime tries again; then it
// succeeds.
func TestRefusedPodIsNotAttached(t *testing.T) {
	t.Parallel()
	e, node, run := newEnforcer(t)
	var w enforcerWorld
	table, err := table.OpenOver(w.dialer(), table.Options{NetNS: node.NSFd()})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	e.table = table
	run()
	a := testAttachment()
	w.spoil(func(o nft.Object) bool {
		return o == elementOf(packetworld.VethMap(policy.Egress, "v4"), a.Addresses[0], a.Interface)
	})
	e.Update(func(c *Model) { c.SetPod(testPod()) })
	ctx, cancel := inTime(packetworld.Patience)
	defer cancel()
	attached := make(chan error)
	go func() { attached <- e.Attach(ctx, a) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for waits := true; waits; {
		select {
		case err := <-attached:
			waits = false
			if !errors.Is(err, nft.ErrRefused) || !strings.Contains(err.Error(), "dev/web") {
				t.Errorf("a pod whose key is refused: %v", err)
			}
		case <-tick.C:
			e.mu.Lock()
			if e.refusals.blocked[a.ID()] != nil {
				cancel() // as if the runtime's patience were at its end
			}
			e.mu.Unlock()
		}
	}
	other := cni.Attachment{
		ContainerID: "c2", IfName: "eth0", PodNamespace: "dev", PodName: "other", PodUID: "u2",
		Interface: "slup00000000002",
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.10")},
	}
	e.Update(func(c *Model) {
		c.SetPod(policy.Pod{ID: selector.Pod{Namespace: "dev", Name: "other", UID: "u2"},
			Node: testPod().Node})
	})
	patient, cancel := inTime(packetworld.Patience)
	defer cancel()
	if err := e.Attach(patient, other); err != nil {
		t.Errorf("another pod: %v", err)
	}
	w.spoil(nil)
	if err := e.Detach(patient, a.ID()); err != nil {
		t.Error(err)
	}
	if err := e.Attach(patient, a); err != nil {
		t.Errorf("when the kernel takes it: %v", err)
	}
}

// TestRefusedBase: what is for all pods can't be left out. Nothing is written, and no pod counts as
// enforced, until the kernel takes it.
func TestRefusedBase(t *testing.T) {
	t.Parallel()
	w := newEnforcerWorld(t, table.Options{Own: true})
	w.spoil(func(o nft.Object) bool { return o.Chain == packetworld.BaseChain("ingress") })
	err := w.e.commit(context.Background())
	if !errors.Is(err, nft.ErrRefused) || !strings.Contains(err.Error(), "can't be left out") {
		t.Errorf("commit: %v", err)
	}
	if err := w.e.Ready(); err == nil {
		t.Error("it is ready")
	}
	w.spoil(nil)
	w.run()
	w.Allowed(slices.Concat(dbByPod, dbByBlock, rest)...)
	w.Denied(slices.Concat(dbDenied, restNot)...)
}

// TestFailureIsReportedOnce: while nothing can be written, each cause is reported once, however
// often it is tried, and then its end.
func TestFailureIsReportedOnce(t *testing.T) {
	t.Parallel()
	w := newEnforcerWorld(t, table.Options{Own: true})
	var lines atomic.Int32
	w.e.opts.Log = funcr.New(func(_, args string) {
		if strings.Contains(args, "Writing the ruleset failed") ||
			strings.Contains(args, "written again") {
			lines.Add(1)
		}
	}, funcr.Options{})
	refused := []string{packetworld.BaseChain("ingress"), packetworld.BaseChain("egress")}
	for i, name := range refused {
		w.spoil(func(o nft.Object) bool { return o.Chain == name })
		for range 5 {
			if err := w.e.commit(context.Background()); err == nil {
				t.Fatal("it was written")
			} else {
				w.e.noteFailure(err, 0)
			}
		}
		if n := lines.Load(); n != int32(i+1) {
			t.Errorf("%d causes: %d lines", i+1, n)
		}
	}
	w.spoil(nil)
	w.run()
	w.Allowed(dbByPod...)
	w.until("the end to be reported", func() bool { return lines.Load() == 3 })
	for _, want := range []string{"RulesetNotWritten", "RulesetNotWritten", "RulesetWritten"} {
		if event := <-w.notices; !strings.Contains(event, want) {
			t.Errorf("event %q, want %s", event, want)
		}
	}
}
