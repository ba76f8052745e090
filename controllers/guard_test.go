package controllers

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// ownNodeReader is an API server that has this node's object at most.
type ownNodeReader struct {
	mu   sync.Mutex
	node *corev1.Node // nil: it doesn't exist
}

func (r *ownNodeReader) set(podCIDRs ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: cases.NodeName},
		Spec: corev1.NodeSpec{PodCIDRs: podCIDRs}}
}

func (r *ownNodeReader) remove() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.node = nil
}

func (r *ownNodeReader) List(_ context.Context, list client.ObjectList,
	_ ...client.ListOption) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if nodes, ok := list.(*corev1.NodeList); ok && r.node != nil {
		nodes.Items = append(nodes.Items, *r.node)
	}
	return nil
}

func (r *ownNodeReader) Get(_ context.Context, key client.ObjectKey, into client.Object,
	_ ...client.GetOption) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	node, ok := into.(*corev1.Node)
	if !ok || r.node == nil || r.node.Name != key.Name {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	r.node.DeepCopyInto(node)
	return nil
}

// TestGuardOutlivesTheAgent: an agent that starts while its node has no object leaves an earlier
// agent's guard of unknown pods' addresses in the kernel, and one that sees the object made anew
// keeps it until that has podCIDRs.
func TestGuardOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	const before, after = "10.88.0.0/16", "10.99.0.0/16"
	node := testnet.NewNode(t)
	table := packetworld.OpenTable(t, node)
	defer table.Close()
	e := enforcer.New(table, enforcer.NewModel(cluster.Options{Node: cases.NodeName},
		ruleset.Config{}), enforcer.Options{Log: testr.New(t)})
	earlier := ruleset.NewRenderer(
		ruleset.Config{PodRanges: []netip.Prefix{netip.MustParsePrefix(before)}}).
		Ruleset(cluster.New(cluster.Options{Node: cases.NodeName}))
	if err := table.Sync(t.Context(), earlier); err != nil {
		t.Fatal(err)
	}
	guards := func(prefix string) bool {
		return strings.Contains(node.Nft("-s", "list", "table", "inet", nft.TableName), prefix)
	}
	if !guards(before) {
		t.Fatal("the earlier agent guards nothing")
	}
	api := &ownNodeReader{}
	a := &Agent{Node: cases.NodeName, Reader: api, Pods: new(podServer).listerWatcher(),
		Enforcer: e, Log: testr.New(t),
		PolicyOnly: PolicyOnlyPods{Enabled: true, Guard: true}}
	reconcile := func() {
		t.Helper()
		if err := a.reconcileNode(t.Context(), client.ObjectKey{Name: cases.NodeName}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	committed := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return e.AwaitFirstCommit(ctx)
	}
	if err := committed(200 * time.Millisecond); err == nil {
		t.Error("it writes without knowing what to guard")
	}
	if !guards(before) {
		t.Error("the earlier guard is gone")
	}
	api.set(before)
	reconcile()
	if err := committed(packetworld.Patience); err != nil {
		t.Fatal(err)
	}
	if !guards(before) {
		t.Error("with the object: no guard")
	}
	for _, c := range []struct {
		what     string
		podCIDRs []string
		want     string
	}{{"made anew", nil, before}, {"with other podCIDRs", []string{after}, after},
		{"gone", nil, after}} {
		api.set(c.podCIDRs...)
		if c.what == "gone" {
			api.remove()
		}
		reconcile()
		// Earlier updates are committed when this one is.
		ctx, cancel := context.WithTimeout(t.Context(), packetworld.Patience)
		err := e.Detach(ctx, "nobody")
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if !guards(c.want) || c.want == after && guards(before) {
			t.Errorf("%s: the guard isn't %s", c.what, c.want)
		}
	}
}
