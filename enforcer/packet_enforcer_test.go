package enforcer

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"

	"github.com/sluice-net/sluice/internal/nftsocket"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/nfttest"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/stretch"
)

// enforcerWorld is a packetworld.World whose table a running Enforcer keeps.
type enforcerWorld struct {
	*packetworld.World
	e        *Enforcer
	notices  chan string
	refusals chan Refusal

	mu     sync.Mutex
	spoilt func(o nft.Object) bool
}

// dbPolicy has one of each: a set of pods, of ports, and of a block.
const dbPolicy = `{podSelector: {matchLabels: {app: db}}, ingress: [
	{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}, {port: 8080}, {port: 80, protocol: UDP}]},
	{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.20/32]}}], ports: [{port: 81}]}]}`

// webPolicy is another policy, for two other pods.
const webPolicy = `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {env: prod}}}], ports: [{port: 81}]}]}`

var (
	dbByPod   = []string{"dev/web > dev/db tcp/80", "dev/web > dev/db udp/80"}
	dbByBlock = []string{"out > dev/db tcp/81 v4"}
	dbDenied  = []string{"dev/web > dev/db tcp/81", "out2 > dev/db tcp/81",
		"prod/web > dev/db tcp/80"}
	rest = []string{"ops/probe > out tcp/80", "dev/db > ops/probe tcp/80",
		"node > dev/db tcp/80"}
	restNot = []string{"ops/probe > prod/web tcp/81", "dev/db > dev/web tcp/81"}
)

// newEnforcerWorld has a node without a table, and an Enforcer that isn't running yet.
func newEnforcerWorld(t *testing.T, opts table.Options) *enforcerWorld {
	t.Helper()
	w := &enforcerWorld{World: packetworld.New(t, ruleset.Config{}),
		notices: make(chan string, 1000), refusals: make(chan Refusal, 1000)}
	w.Allowed(slices.Concat(dbByPod, dbByBlock, dbDenied, rest, restNot)...)
	w.Node.Nft("delete", "table", "inet", "sluice")
	opts.NetNS = w.Node.NSFd()
	w.enforcer(opts)
	w.setPolicies(map[string]string{"dev/db": dbPolicy, "dev/web": webPolicy,
		"prod/web": webPolicy})
	return w
}

// dialer is one of connections on which the kernel refuses what is spoilt.
func (w *enforcerWorld) dialer() nftsocket.Dialer {
	return nfttest.Refusing(func(o nft.Object) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.spoilt != nil && w.spoilt(o)
	})
}

// enforcer makes the Enforcer, with all that is in the world but policies.
func (w *enforcerWorld) enforcer(opts table.Options) {
	w.T.Helper()
	table, err := table.OpenOver(w.dialer(), opts)
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() {
		if err := table.Close(); err != nil {
			w.T.Error(err)
		}
	})
	w.Table = table
	w.e = New(table, NewModel(cluster.Options{Node: cases.NodeName}, ruleset.Config{}), Options{
		Log:       testr.New(w.T),
		Warn:      func(reason, note string) { w.notices <- "Warning " + reason + " " + note },
		Say:       func(reason, note string) { w.notices <- "Normal " + reason + " " + note },
		OnRefused: func(r Refusal) { w.refusals <- r },
	})
	w.e.Update(func(c *Model) {
		for _, ns := range cases.Namespaces() {
			c.SetNamespace(ns.Name, ns.Labels)
		}
		c.SetNode(policy.NodeFrom(cases.Node()))
		for _, in := range cases.Pods() {
			p := policy.PodFrom(in)
			c.SetPod(p)
			id := w.Hosts[p.ID.Namespace+"/"+p.ID.Name].Interface()
			c.SetEndpoint(policy.Endpoint{ID: id, Pod: p.ID, Interface: id, Addresses: p.Addresses})
		}
	})
}

func (w *enforcerWorld) setPolicies(specs map[string]string) {
	w.T.Helper()
	for key, spec := range specs {
		np, err := cases.RenderPolicy(key, spec, cases.Addr)
		if err != nil {
			w.T.Fatal(err)
		}
		w.e.Update(func(c *Model) { c.SetPolicy(policy.Parse(np)) })
	}
}

// run runs the Enforcer until stop, or the test's end.
func (w *enforcerWorld) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.e.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.T.Error(err)
		}
	})
	w.T.Cleanup(stop)
	w.committed()
	return stop
}

// committed waits until all updates are in the kernel.
func (w *enforcerWorld) committed() {
	w.T.Helper()
	ctx, cancel := inTime(packetworld.Patience)
	defer cancel()
	if err := w.e.await(ctx, func() error { return nil }); err != nil {
		w.T.Fatal(err)
	}
}

func (w *enforcerWorld) must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

// until waits for a condition.
func (w *enforcerWorld) until(what string, holds func() bool) {
	w.T.Helper()
	tick := time.NewTicker(stretch.By(2 * time.Millisecond))
	defer tick.Stop()
	for deadline := time.Now().Add(packetworld.Patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			w.T.Fatalf("waited in vain for %s; the table is\n%s", what,
				w.Node.Nft("list", "ruleset"))
		}
	}
}

// spoil has the kernel refuse objects; nil: none.
func (w *enforcerWorld) spoil(f func(o nft.Object) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spoilt = f
}

func elementOf(set string, addr netip.Addr, iface string) nft.Object {
	return nft.Object{Set: set, Element: nft.AddrIfaceElement(addr, iface)}
}
