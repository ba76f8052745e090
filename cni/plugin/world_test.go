package plugin

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr/funcr"
	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/cni/podlink"
	"github.com/sluice-net/sluice/cni/server"
	"github.com/sluice-net/sluice/test/cnitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testAgent is a real server, and what can be done to it.
type testAgent struct {
	*cnitest.Agent

	options func(*server.Options)
	server  *server.Server
}

func newAgent(t testing.TB, options ...func(*server.Options)) *testAgent {
	t.Helper()
	a := makeAgent(t, options)
	a.Start()
	return a
}

// newBareAgent makes one that knows nothing of the node yet.
func newBareAgent(t testing.TB, options ...func(*server.Options)) *testAgent {
	t.Helper()
	a := makeAgent(t, options)
	a.IsBare = true
	a.Start()
	return a
}

func makeAgent(t testing.TB, options []func(*server.Options)) *testAgent {
	t.Helper()
	a := &testAgent{options: func(o *server.Options) {
		for _, set := range options {
			set(o)
		}
	}}
	a.Agent = cnitest.NewAgent(t, a.newServer)
	return a
}

func (a *testAgent) newServer() cnitest.Server {
	a.T.Helper()
	options := server.Options{
		Socket: a.Socket, StateDir: a.StateDir, Enforcer: a.Enforcer,
		Log: funcr.New(a.Log.Add, funcr.Options{}), Now: a.Clock.Now,
		NetNS: cnitest.NoNetNS{},
	}
	a.options(&options)
	a.Socket = options.Socket
	s, err := server.New(options)
	if err != nil {
		a.T.Fatal(err)
	}
	a.server = s
	return s
}

// testNode is a node with an agent, on which the plugin runs.
type testNode struct {
	*testAgent
	*cnitest.Node

	plugin *Plugin
}

func newNode(t testing.TB, options ...func(*server.Options)) *testNode {
	t.Helper()
	ours := New()
	n := &testNode{Node: cnitest.NewNode(t), plugin: &ours}
	n.testAgent = newAgent(t, append([]func(*server.Options){n.inNetNS}, options...)...)
	n.server.SetNodeAddresses(cnitest.Addrs(cnitest.Node4.String(), cnitest.Node6.String()))
	return n
}

// newHealingNode is a node whose host ends are looked after, as on a real one.
func newHealingNode(t testing.TB) *testNode {
	t.Helper()
	n := newNode(t)
	ctx, cancel := context.WithCancel(context.Background())
	var keeper sync.WaitGroup
	keeper.Go(func() {
		if err := n.server.KeepHostEnds(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); keeper.Wait() })
	return n
}

func (n *testNode) inNetNS(o *server.Options) { o.NetNS = n.NetNS }

// podLinks are the pods' links on the node, as the agent sees them.
func (n *testNode) podLinks() (links []podlink.Link, err error) {
	err = n.NetNS.Do(func(ns.NetNS) (err error) { links, err = podlink.List(); return err })
	return links, err
}

// expectLinks waits until the node has so many links of pods: one goes last of all, after the
// answer to DEL.
func (n *testNode) expectLinks(count int) {
	n.T.Helper()
	cnitest.Eventually(n.T, fmt.Sprint(count, " links"), func() bool {
		return len(n.HostLinks()) == count
	})
}

// expectAfterReap is Expect once the agent has looked for what is gone, as it does now and then. It
// leaves alone what a DEL is still at.
func (n *testNode) expectAfterReap(ids ...string) {
	n.T.Helper()
	cnitest.Eventually(n.T, "the reaper", func() bool {
		n.server.Reap(context.Background())
		return len(n.Differences(ids)) == 0
	})
}

// testPod is a pod of a node.
type testPod struct {
	*cnitest.Pod

	n *testNode
}

func (n *testNode) newPod(container, pod string) *testPod {
	n.T.Helper()
	return &testPod{n.NewPod(n.plugin, container, pod, n.Config("1.1.0")), n}
}

// newPolicyPod is a pod that another plugin has wired.
func (n *testNode) newPolicyPod(container, version, more string) *testPod {
	n.T.Helper()
	return &testPod{n.NewPolicyPod(n.plugin, container, n.Config(version), more), n}
}

// expectNothing: no link on either side, no route, and nothing that the agent knows.
func (p *testPod) expectNothing() {
	p.n.T.Helper()
	p.n.Expect()
	p.n.expectLinks(0)
	if names := cnitest.LinkNames(p.n.T, p.NetNS); len(names) > 0 {
		p.n.T.Errorf("the pod has %v", names)
	}
}
