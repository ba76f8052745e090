package server

import (
	"testing"

	"github.com/go-logr/logr/funcr"
	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/cni/plugin"
	"github.com/sluice-net/sluice/test/cnitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testAgent is a real server, and what can be done to it.
type testAgent struct {
	*cnitest.Agent

	options func(*Options)
	server  *Server
}

func newAgent(t testing.TB, options ...func(*Options)) *testAgent {
	t.Helper()
	a := makeAgent(t, options)
	a.Start()
	return a
}

func makeAgent(t testing.TB, options []func(*Options)) *testAgent {
	t.Helper()
	a := &testAgent{options: func(o *Options) {
		for _, set := range options {
			set(o)
		}
	}}
	a.Agent = cnitest.NewAgent(t, a.newServer)
	return a
}

func (a *testAgent) newServer() cnitest.Server {
	a.T.Helper()
	options := Options{
		Socket: a.Socket, StateDir: a.StateDir, Enforcer: a.Enforcer,
		Log: funcr.New(a.Log.Add, funcr.Options{}), Now: a.Clock.Now,
		NetNS: cnitest.NoNetNS{},
	}
	a.options(&options)
	a.Socket = options.Socket
	s, err := New(options)
	if err != nil {
		a.T.Fatal(err)
	}
	a.server = s
	return s
}

// Settle waits for the DELs that were answered and aren't done.
func (a *testAgent) Settle() {
	a.T.Helper()
	cnitest.Eventually(a.T, "what leaves", a.server.isIdle)
}

// Expect compares what there is of attachments, see cnitest.Agent, as soon as nothing is under way.
func (a *testAgent) Expect(ids ...string) {
	a.T.Helper()
	a.Settle()
	a.Agent.Expect(ids...)
}

// isIdle tells whether no request about an attachment is under way, nor what is left of a DEL that
// was answered.
func (s *Server) isIdle() bool {
	s.busy.mu.Lock()
	defer s.busy.mu.Unlock()
	return len(s.busy.held) == 0
}

// pluginStatus asks the plugin as a runtime does.
func (a *testAgent) pluginStatus() error { return a.Status(plugin.New().Status) }

// becomesReady waits until STATUS succeeds.
func (a *testAgent) becomesReady() {
	a.T.Helper()
	cnitest.Eventually(a.T, "STATUS to succeed", func() bool { return a.pluginStatus() == nil })
}

// testNode is a node with an agent, on which the real plugin runs.
type testNode struct {
	*testAgent
	*cnitest.Node
}

func newNode(t testing.TB, options ...func(*Options)) *testNode {
	t.Helper()
	n := &testNode{Node: cnitest.NewNode(t)}
	onNode := func(o *Options) { o.NetNS = n.NetNS }
	n.testAgent = newAgent(t, append([]func(*Options){onNode}, options...)...)
	n.server.SetNodeAddresses(cnitest.Addrs(cnitest.Node4.String(), cnitest.Node6.String()))
	return n
}

func (n *testNode) newPod(container, pod string) *cnitest.Pod {
	n.T.Helper()
	return n.NewPod(plugin.New(), container, pod, n.Config("1.1.0"))
}
