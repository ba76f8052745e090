package enforce

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/e2e/lab/kubelet"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/memorygroup"
	"github.com/sluice-net/sluice/test/probe"
)

// TestFaults: the agent or the API server dies.
func TestFaults(t *testing.T) { //nolint:tparallel // the parts take turns on one lab
	t.Parallel()
	l := newLab(t, labName(t, "faults"), lab.Options{Nodes: 2})
	w := newWorld(t, l, apart)
	for _, part := range []struct {
		name string
		test func(w *world)
	}{
		{"the agent is killed and started again under traffic", agentRestarts},
		{"the agent is killed for its memory", agentOutOfMemory},
		{"the agent is dead while pods start", agentDeadWhilePodsStart},
		{"the API server is away", apiServerAway},
		{"the agent starts while the API server is away", agentStartsWithoutAPIServer},
		{"the agent starts on directories that are read-only", agentStartsReadOnly},
		{"a second agent is started on a node", secondAgent},
		{"IPVS comes and goes", ipvsComesAndGoes},
		{"the connection to the API server is dead", connectionIsDead},
		{"the API server answers late", apiAnswersLate},
		{"the API server comes back with other objects and without history", otherHistory},
	} {
		t.Run(part.name, func(t *testing.T) {
			w := *w
			w.t = t
			part.test(&w)
		})
	}
}

var (
	stillAllowed = []string{"dev/web > dev/db tcp/80", "dev/web > dev/db udp/80",
		"prod/web > ops/probe tcp/80", "node > dev/db tcp/80"}
	stillDenied = []string{"dev/web > dev/db tcp/81", "prod/web > dev/db tcp/80",
		"out > dev/db udp/80", "dev/db > dev/web tcp/80"}
)

func (w *world) policiesUnderFault() {
	w.t.Helper()
	w.allowed(append(stillAllowed, stillDenied...)...)
	w.setPolicies(map[string]string{
		"dev/db":  `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}, {port: 80, protocol: UDP}]}]}`,
		"dev/web": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}`,
	})
	w.denied(stillDenied...)
	w.allowed(stillAllowed...)
}

// watchDenied tries denied flows over and over until stop, and fails the test if one ever connects.
func (w *world) watchDenied(flows []string) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	for _, f := range cases.MustFlows(flows) {
		for _, family := range f.Families {
			all.Go(func() {
				for ctx.Err() == nil {
					if r := w.connect(f, family); r.OK {
						w.t.Errorf("%s (IPv%d) is denied, but connected: %s", f, family, r.Reply)
						return
					}
				}
			})
		}
	}
	return func() { cancel(); all.Wait() }
}

// watchedPort is one that stillAllowed are on.
const watchedPort = 80

// watchFlow keeps an allowed connection busy until stop, and fails the test if it ever breaks.
func (w *world) watchFlow(from, to string, protocol probe.Protocol) (stop func()) {
	w.t.Helper()
	f := cases.Flow{From: from, To: to, Protocol: string(protocol), Port: watchedPort}
	ctx, cancel := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	for _, family := range []int{4, 6} {
		flow, err := w.OpenFlow(w.place(from, to), protocol,
			addrPort(w.addr(to, from, family), watchedPort))
		w.must(err)
		all.Go(func() {
			defer flow.Close()
			for ctx.Err() == nil {
				if err := flow.Echo(); err != nil {
					w.t.Errorf("%s (IPv%d) is allowed, but broke: %v", f, family, err)
					return
				}
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

func agentRestarts(w *world) {
	w.policiesUnderFault()
	stopDenied := w.watchDenied(stillDenied)
	stopTCP := w.watchFlow("dev/web", "dev/db", probe.TCP)
	stopUDP := w.watchFlow("dev/web", "dev/db", probe.UDP)
	for round := range 5 {
		for _, node := range w.Nodes() {
			before := w.ruleset(node)
			node.KillAgent()
			w.same(node, before,
				fmt.Sprintf("round %d: while the agent of %s is dead", round, node.Name()))
			w.must(node.StartAgent())
			w.must(node.WaitAgentReady(w.t.Context()))
			w.same(node, before,
				fmt.Sprintf("round %d: when the agent of %s is back", round, node.Name()))
		}
	}
	stopTCP()
	stopUDP()
	stopDenied()
	// What changed while an agent was away holds when it is back.
	for _, node := range w.Nodes() {
		node.KillAgent()
	}
	w.deletePolicies("dev/db", "dev/web")
	w.denied(stillDenied...)
	for _, node := range w.Nodes() {
		w.must(node.StartAgent())
		w.must(node.WaitAgentReady(w.t.Context()))
	}
	w.allowed(stillDenied...)
}

// agentOutOfMemory: while the kernel kills each agent that starts, and one that works, what is in
// the kernel holds; with enough memory the next one goes on.
func agentOutOfMemory(w *world) {
	const tooLittle, plenty = 6 << 20, 8 << 30
	group := memorygroup.New(w.t)
	w.policiesUnderFault()
	node := w.Node("node2")
	node.KillAgent()
	node.LaunchAgentBy(group.Launcher()...)
	w.t.Cleanup(func() { // for the tests behind this one, also if it fails
		node.KillAgent()
		node.LaunchAgentBy()
		w.must(node.StartAgent())
		w.must(node.WaitAgentReady(context.Background()))
	})
	before := w.ruleset(node)
	stopDenied := w.watchDenied(stillDenied)
	stopFlow := w.watchFlow("prod/web", "ops/probe", probe.TCP)
	w.must(group.Limit(tooLittle))
	for killed := range 3 {
		w.must(node.StartAgent())
		w.killedForMemory(node, group, killed+1)
		w.same(node, before, "while agents are killed at their start")
	}
	w.must(group.Limit(plenty))
	w.must(node.StartAgent())
	w.must(node.WaitAgentReady(w.t.Context()))
	w.same(node, before, "when an agent has enough memory")

	used, err := group.Usage()
	w.must(err)
	w.must(group.Limit(used + 1<<20))
	large := map[string]string{"prod/large": manyBlocks(20_000)}
	w.setPolicies(large)
	w.killedForMemory(node, group, 4)
	w.must(group.Limit(plenty))
	w.must(node.StartAgent())
	w.must(node.WaitAgentReady(w.t.Context()))
	w.denied("ops/probe > prod/web tcp/81")
	stopFlow()
	stopDenied()
	w.deletePolicies("prod/large", "dev/db", "dev/web")
	w.allowed(stillDenied...)
}

// killedForMemory waits until the kernel has killed so many agents, and the node's is gone.
func (w *world) killedForMemory(node *lab.Node, group memorygroup.Group, kills int) {
	w.t.Helper()
	w.eventually("the kernel to kill the agent", func() bool {
		n, err := group.Kills()
		w.must(err)
		return n == kills && node.AgentPID() == 0
	})
}

// manyBlocks is a policy for all pods of its namespace that lets n single addresses in.
func manyBlocks(n int) string {
	var peers strings.Builder
	for i := range n {
		fmt.Fprintf(&peers, "{ipBlock: {cidr: 203.%d.%d.%d/32}}, ", i>>16, i>>8&255, i&255)
	}
	return `{podSelector: {}, ingress: [{from: [` + peers.String() + `], ports: [{port: 80}]}]}`
}

// ruleset lists a node's table without its counters and its first lines: they name the owner, and
// there is none while the agent is dead.
func (w *world) ruleset(node *lab.Node) string {
	w.t.Helper()
	listing, err := node.Nft(w.t.Context(), "--stateless", "list", "table", "inet", "sluice")
	w.must(err)
	_, content, _ := strings.Cut(listing, "\n")
	if flags, rest, _ := strings.Cut(content, "\n"); strings.HasPrefix(flags, "\tflags") {
		content = rest
	}
	return content
}

func (w *world) same(node *lab.Node, before, when string) {
	w.t.Helper()
	if now := w.ruleset(node); now != before {
		w.t.Errorf("%s the ruleset is another:\n%s\nbefore:\n%s", when, now, before)
	}
}

// latePod is a pod that tries to get out as its first act.
func latePod(name, node, target string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: name,
			Annotations: map[string]string{kubelet.FirstConnectAnnotation: target}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{
			Name: "main", Image: "main", Ports: []corev1.ContainerPort{{ContainerPort: 80}},
		}}},
	}
}

// agentDeadWhilePodsStart: without an agent no pod gets a network, not even an open one. With it
// they all do.
func agentDeadWhilePodsStart(w *world) {
	const pods = 5
	node := w.Node("node2")
	node.KillAgent()
	defer func() { w.must(node.StartAgent()) }() // for the tests behind this one, also if it fails
	target := fmt.Sprintf("tcp://%s", addrPort(w.addr("ops/probe", "", 4), 80))
	var names []string
	for i := range pods {
		pod := latePod(fmt.Sprintf("late-%d", i), node.Name(), target)
		w.must(w.Client().Create(w.t.Context(), pod))
		names = append(names, "ops/"+pod.Name)
	}
	for _, name := range names {
		w.eventually(name+" to fail its start", func() bool {
			return strings.Contains(w.startFailure(name), "no answer from the node's agent")
		})
		if pod, err := w.Pod(name); err == nil {
			w.t.Errorf("%s has a network: %v", name, pod.Addresses)
		}
	}
	w.must(node.StartAgent())
	w.must(node.WaitAgentReady(w.t.Context()))
	w.must(w.WaitReady(w.t.Context(), names...))
	for _, name := range names {
		w.eventually(name+" to have connected", func() bool {
			result, done := w.firstConnect(name)
			return done && result.OK
		})
		w.must(w.deletePod(name))
	}
}

// apiServerAway: what is in the kernel holds, and is kept up when it is back.
func apiServerAway(w *world) {
	w.policiesUnderFault()
	stop := w.watchDenied(stillDenied)
	flow := w.watchFlow("dev/web", "dev/db", probe.TCP)
	w.StopAPIServer()
	w.allowed(stillAllowed...)
	w.must(w.StartAPIServer(w.t.Context()))
	flow()
	stop()
	w.denied(stillDenied...)
	w.allowed(stillAllowed...)
	start := time.Now()
	w.deletePolicies("dev/db", "dev/web")
	w.allowed(stillDenied...)
	w.t.Logf("a change after the API server was away was in force %v after its answer",
		time.Since(start).Round(time.Millisecond))
}

// agentStartsWithoutAPIServer: what is in the kernel holds unchanged, and the agent isn't ready,
// until the API server is back.
func agentStartsWithoutAPIServer(w *world) {
	w.policiesUnderFault()
	node := w.Node("node2")
	before := w.ruleset(node)
	stop := w.watchDenied(stillDenied)
	w.StopAPIServer()
	node.KillAgent()
	w.must(node.StartAgent())
	w.allowed(stillAllowed...)
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Second)
	defer cancel()
	if err := node.WaitAgentReady(ctx); err == nil {
		w.t.Error("the agent is ready without having seen the API server")
	}
	w.same(node, before, "while agent and API server are away")
	w.must(w.StartAPIServer(w.t.Context()))
	w.must(node.WaitAgentReady(w.t.Context()))
	w.same(node, before, "when both are back")
	stop()
	w.deletePolicies("dev/db", "dev/web")
	w.allowed(stillDenied...)
}
