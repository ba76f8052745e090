// Package packetworld is a bed for tests of what the ruleset does to packets: the world of the
// meaning cases with real ones.
package packetworld

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/stretch"
	"github.com/sluice-net/sluice/test/testnet"
)

// Patience is how long a test waits for what must come, on the busiest machine.
var Patience = stretch.By(2 * time.Minute)

// World is the world of the meaning cases with real packets: a node in a network namespace, its
// pods and outside hosts around it, and the table in its kernel.
type World struct {
	T       *testing.T
	Node    *testnet.Node
	Hosts   map[string]*testnet.Host // by namespace/name, or name
	Cluster *cluster.Cluster
	Render  *ruleset.Renderer
	Table   *table.Table
}

// Wiring makes a pod's place in the network.
type Wiring func(n *testnet.Node, name string, addrs ...netip.Addr) *testnet.Host

// New wires everything and installs the ruleset without policies.
func New(t *testing.T, cfg ruleset.Config) *World {
	t.Helper()
	w := &World{
		T: t, Node: testnet.NewNode(t), Hosts: map[string]*testnet.Host{},
		Cluster: cluster.New(cluster.Options{Node: cases.NodeName,
			AllowPodToNode: cfg.AllowPodToNode}),
		Render: ruleset.NewRenderer(cfg),
	}
	for name, addresses := range cases.Hosts {
		var addrs []netip.Addr
		for _, a := range addresses {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		if name != cases.NodeName {
			w.Hosts[name] = w.Node.Outside(name, addrs...)
			continue
		}
		for _, a := range addrs {
			w.Node.AddAddr(a)
		}
		w.Hosts[name] = w.Node.Host()
	}
	for _, ns := range cases.Namespaces() {
		w.Cluster.SetNamespace(ns.Name, ns.Labels)
	}
	w.Cluster.SetNode(policy.NodeFrom(cases.Node()))
	for _, in := range cases.Pods() {
		p := policy.PodFrom(in)
		w.AddPod(p, (*testnet.Node).Pod)
	}
	for _, h := range w.Hosts {
		Serve(h)
	}
	w.sync()
	return w
}

// AddPod wires and attaches a pod, and makes it known.
func (w *World) AddPod(p policy.Pod, wire Wiring) *testnet.Host {
	w.T.Helper()
	name := p.ID.Namespace + "/" + p.ID.Name
	h := wire(w.Node, name, p.Addresses...)
	w.Hosts[name] = h
	w.Cluster.SetPod(p)
	w.Cluster.SetEndpoint(policy.Endpoint{ID: h.Interface(), Pod: p.ID, Interface: h.Interface(),
		Addresses: p.Addresses})
	return h
}

// Serve has a host serve the ports that the cases speak of.
func Serve(h *testnet.Host) {
	for _, p := range cases.TCPPorts {
		h.ServeTCP(p)
	}
	for _, p := range cases.UDPPorts {
		h.ServeUDP(p)
	}
	for _, p := range cases.SCTPPorts {
		h.ServeSCTP(p)
	}
}

// sync opens the table and writes the cluster's state to it.
func (w *World) sync() {
	w.T.Helper()
	table, err := table.Open(table.Options{NetNS: w.Node.NSFd(), FlushTimeout: Patience})
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() {
		if err := table.Close(); err != nil {
			w.T.Error(err)
		}
	})
	w.Table = table
	w.Cluster.Take()
	if err := table.Sync(context.Background(), w.Render.Ruleset(w.Cluster)); err != nil {
		w.T.Fatal(err)
	}
}

// Apply writes what changed in the cluster to the table.
func (w *World) Apply() {
	w.T.Helper()
	if err := w.Table.Apply(context.Background(),
		w.Render.Patch(w.Cluster, w.Cluster.Take())); err != nil {
		w.T.Fatal(err)
	}
	differences, err := w.Table.Check(context.Background())
	if err != nil {
		w.T.Fatal(err)
	}
	for _, d := range differences {
		w.T.Errorf("the kernel's table differs: %s", d)
	}
}

// SetPolicy adds policies, given as spec by namespace/name, and applies them.
func (w *World) SetPolicy(specs map[string]string) {
	w.T.Helper()
	for key, spec := range specs {
		np, err := cases.RenderPolicy(key, spec, cases.Addr)
		if err != nil {
			w.T.Fatal(err)
		}
		w.Cluster.SetPolicy(policy.Parse(np))
	}
	w.Apply()
}

// DeletePolicies takes policies away, and applies that.
func (w *World) DeletePolicies(policies ...policy.Key) {
	w.T.Helper()
	for _, k := range policies {
		w.Cluster.DeletePolicy(k)
	}
	w.Apply()
}

// Addr is the address of a host, of family 4 or 6.
func (w *World) Addr(name string, family int) netip.Addr {
	if family == 4 {
		return w.Hosts[name].Addr4()
	}
	return w.Hosts[name].Addr6()
}

// Expect tries every flow in every family it is meant for, side by side.
func (w *World) Expect(flows []cases.Flow, connects bool) {
	w.T.Helper()
	var all sync.WaitGroup
	for _, f := range flows {
		for _, family := range f.Families {
			all.Go(func() {
				dst := netip.AddrPortFrom(w.Addr(f.To, family), f.Port)
				if connects {
					w.Hosts[f.From].MustReach(w.T, testnet.Protocol(f.Protocol), dst)
				} else {
					w.Hosts[f.From].MustNotReach(w.T, testnet.Protocol(f.Protocol), dst)
				}
			})
		}
	}
	all.Wait()
}

// Allowed expects flows, as cases.MustFlows reads them, to connect.
func (w *World) Allowed(flows ...string) {
	w.T.Helper()
	w.Expect(cases.MustFlows(flows), true)
}

// Denied expects flows not to connect.
func (w *World) Denied(flows ...string) {
	w.T.Helper()
	w.Expect(cases.MustFlows(flows), false)
}
