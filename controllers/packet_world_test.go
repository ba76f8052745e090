package controllers

import (
	"context"
	"net/netip"
	"sync"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/testnet"
)

// packetWorld is the world of the meaning cases with real packets: a node in
// a network namespace, its pods and outside hosts around it, and the table
// in its kernel.
type packetWorld struct {
	t       *testing.T
	node    *testnet.Node
	hosts   map[string]*testnet.Host
	cluster *policy.Cluster
	render  *Renderer
	table   *table.Table
}

// wiring makes a pod's place in the network.
type wiring func(n *testnet.Node, name string, addrs ...netip.Addr) *testnet.Host

// newPacketWorld wires everything and installs the ruleset without policies.
func newPacketWorld(t *testing.T, cfg RulesetConfig) *packetWorld {
	t.Helper()
	w := &packetWorld{
		t: t, node: testnet.NewNode(t), hosts: map[string]*testnet.Host{},
		cluster: policy.NewCluster(policy.Options{Node: cases.NodeName, AllowPodToNode: cfg.AllowPodToNode}),
		render:  NewRenderer(cfg),
	}
	for name, addresses := range cases.Hosts {
		var addrs []netip.Addr
		for _, a := range addresses {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		if name != cases.NodeName {
			w.hosts[name] = w.node.Outside(name, addrs...)
			continue
		}
		for _, a := range addrs {
			w.node.AddAddr(a)
		}
		w.hosts[name] = w.node.Host()
	}
	for _, ns := range cases.Namespaces() {
		w.cluster.SetNamespace(ns.Name, ns.Labels)
	}
	w.cluster.SetNode(policy.NodeFrom(cases.Node()))
	for _, in := range cases.Pods() {
		p := policy.PodFrom(in)
		w.addPod(p, (*testnet.Node).Pod)
	}
	for _, h := range w.hosts {
		serve(h)
	}
	w.sync()
	return w
}

// addPod wires and attaches a pod, and makes it known.
func (w *packetWorld) addPod(p policy.Pod, wire wiring) *testnet.Host {
	w.t.Helper()
	name := p.ID.Namespace + "/" + p.ID.Name
	h := wire(w.node, name, p.Addresses...)
	w.hosts[name] = h
	w.cluster.SetPod(p)
	w.cluster.SetEndpoint(policy.Endpoint{ID: h.Interface(), Pod: p.ID, Interface: h.Interface(), Addresses: p.Addresses})
	return h
}

func serve(h *testnet.Host) {
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

// sync opens the table and brings it to the cluster's state.
func (w *packetWorld) sync() {
	w.t.Helper()
	table, err := table.Open(table.Options{NetNS: w.node.NSFd()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := table.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.table = table
	w.cluster.Take()
	if err := table.Sync(context.Background(), w.render.Ruleset(w.cluster)); err != nil {
		w.t.Fatal(err)
	}
}

// apply brings the table in line with what changed in the cluster.
func (w *packetWorld) apply() {
	w.t.Helper()
	if err := w.table.Apply(context.Background(), w.render.Patch(w.cluster, w.cluster.Take())); err != nil {
		w.t.Fatal(err)
	}
	differences, err := w.table.Check(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, d := range differences {
		w.t.Errorf("the kernel's table differs: %s", d)
	}
}

// setPolicy adds policies, given as spec by namespace/name, and applies them.
func (w *packetWorld) setPolicy(specs map[string]string) {
	w.t.Helper()
	for key, spec := range specs {
		np, err := cases.RenderPolicy(key, spec, cases.Addr)
		if err != nil {
			w.t.Fatal(err)
		}
		w.cluster.SetPolicy(policy.Parse(np))
	}
	w.apply()
}

func (w *packetWorld) deletePolicies(policies []*networkingv1.NetworkPolicy) {
	w.t.Helper()
	for _, np := range policies {
		w.cluster.DeletePolicy(policy.Key{Namespace: np.Namespace, Name: np.Name})
	}
	w.apply()
}

func (w *packetWorld) addr(name string, family int) netip.Addr {
	if family == 4 {
		return w.hosts[name].Addr4()
	}
	return w.hosts[name].Addr6()
}

// expect tries every flow in every family it is meant for, side by side.
func (w *packetWorld) expect(flows []cases.Flow, connects bool) {
	w.t.Helper()
	var all sync.WaitGroup
	for _, f := range flows {
		for _, family := range f.Families {
			all.Go(func() {
				dst := netip.AddrPortFrom(w.addr(f.To, family), f.Port)
				if connects {
					w.hosts[f.From].MustReach(w.t, testnet.Protocol(f.Protocol), dst)
				} else {
					w.hosts[f.From].MustNotReach(w.t, testnet.Protocol(f.Protocol), dst)
				}
			})
		}
	}
	all.Wait()
}

func (w *packetWorld) allowed(flows ...string) {
	w.t.Helper()
	w.expect(cases.MustFlows(flows), true)
}

func (w *packetWorld) denied(flows ...string) {
	w.t.Helper()
	w.expect(cases.MustFlows(flows), false)
}
