package enforce

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/probe"
)

// connectionIsDead: packets of the agent's connection to the API server get lost both ways, and
// neither end closes it. It is noticed by HTTP/2's pings, with other times than client-go's, which
// are 30 s and 15 s.
func connectionIsDead(w *world) {
	const flow = "dev/web > dev/db tcp/80"
	env, err := exec.LookPath("env")
	w.must(err)
	node := w.Node(w.node["dev/db"])
	node.LaunchAgentBy(env, "HTTP2_READ_IDLE_TIMEOUT_SECONDS=2", "HTTP2_PING_TIMEOUT_SECONDS=1")
	defer node.LaunchAgentBy()
	node.KillAgent()
	w.must(node.StartAgent())
	w.must(node.WaitAgentReady(w.t.Context()))
	w.allowed(flow)
	node.HoldAPI()
	w.setPolicies(map[string]string{"dev/db": `{podSelector: {matchLabels: {app: db}}}`})
	w.denied(flow)
	w.eventually("a line in the agent's log", func() bool {
		return contains(node.AgentLog(), "The API server isn't heard",
			"The API server is heard again")
	})
	w.deletePolicies("dev/db")
	w.allowed(flow)
}

// apiAnswersLate: all that the API server sends arrives seconds later. The agent starts, pods
// start, and policies are in force, that much later each; nothing is given up.
func apiAnswersLate(w *world) {
	if os.Getenv("SLUICE_LONG") == "" {
		w.t.Skip("waits for late answers: set SLUICE_LONG=1")
	}
	const late = 9 * time.Second
	node := w.Node(w.node["dev/db"])
	w.policiesUnderFault()
	before := w.ruleset(node)
	stopDenied := w.watchDenied(stillDenied)
	node.DelayAPI(late)
	w.t.Cleanup(func() { // for the tests behind this one, also if it fails
		node.DelayAPI(0)
		node.KillAgent()
		w.must(node.StartAgent())
		w.must(node.WaitAgentReady(context.Background()))
	})
	node.KillAgent()
	start := time.Now()
	passed := func(what string) {
		w.t.Logf("%s: %s", what, time.Since(start).Round(time.Second))
		start = time.Now()
	}
	w.must(node.StartAgent())
	w.eventually("the agent to be ready", func() bool {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		return node.WaitAgentReady(ctx) == nil
	})
	passed("ready")
	w.same(node, before, "when an agent has started")
	w.setPolicies(map[string]string{
		"dev/db": `{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}`})
	w.eventually("the policy to be in force", func() bool {
		return !w.connect(cases.MustFlows([]string{"dev/web > dev/db tcp/80"})[0], 4).OK
	})
	passed("policy")
	w.must(w.Client().Create(w.t.Context(),
		latePod("late", node.Name(),
			fmt.Sprintf("tcp://%s", addrPort(w.addr("ops/probe", "", 4), 80)))))
	w.must(w.WaitReady(w.t.Context(), "ops/late"))
	passed("pod")
	w.must(w.deletePod("ops/late"))
	stopDenied()
	w.deletePolicies("dev/db", "dev/web")
	w.allowed(stillDenied...)
	passed("no policies")
}

// otherHistory: the API server is away from an agent, and when it is back objects were deleted and
// made anew, under the same names with other UIDs and contents, and of the changes in between
// nothing is left.
func otherHistory(w *world) {
	const (
		closes, lives, opens = "dev/web > dev/db tcp/81", "prod/web > dev/db tcp/80",
			"dev/web > dev/db tcp/80"
		never, neverEither = "prod/web > dev/db tcp/81", "ops/probe > dev/db tcp/80"
	)
	node := w.Node(w.node["dev/db"])
	if node.Name() == w.node["dev/web"] {
		w.t.Fatal("both pods are on the node of which the agent is cut off")
	}
	w.setPolicies(map[string]string{"dev/db": `{podSelector: {matchLabels: {app: db}}, ingress: [` +
		`{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: prod}}}], ports: [{port: 80}]},` +
		`{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 81}]}]}`})
	w.denied(opens, never, neverEither)
	w.allowed(closes, lives)
	stop := w.watchDenied([]string{never, neverEither})
	flow, err := w.OpenFlow(w.place("prod/web", "dev/db"), probe.TCP,
		addrPort(w.addr("dev/db", "prod/web", 4), 80))
	w.must(err)
	defer flow.Close()
	w.must(flow.Echo())
	before := w.ruleset(node)

	node.CutAPI()
	var old networkingv1.NetworkPolicyList
	w.must(w.Client().List(w.t.Context(), &old))
	w.deletePolicies("dev/db")
	w.setPolicies(map[string]string{"dev/db": `{podSelector: {matchLabels: {app: db}}, ingress: [` +
		`{from: [{podSelector: {matchLabels: {app: other}}}], ports: [{port: 80}]}]}`})
	w.again("dev/web", map[string]string{"app": "other"})
	w.StopAPIServer()
	w.must(w.StartAPIServer(w.t.Context()))
	w.historyIsGone(old.ResourceVersion)
	w.same(node, before, "while the agent hears nothing")
	w.must(flow.Echo())
	w.allowed(lives)

	w.must(node.RestoreAPI())
	w.denied(closes, lives)
	w.allowed(opens)
	var ended atomic.Bool
	w.eventually("the connection to end that is denied now", func() bool {
		ended.Store(ended.Load() || flow.Echo() != nil)
		return ended.Load()
	})
	stop()
	relisted := w.ruleset(node)
	node.KillAgent()
	w.must(node.StartAgent())
	w.must(node.WaitAgentReady(w.t.Context()))
	w.same(node, relisted, "of an agent that never knew the old objects")
	w.deletePolicies("dev/db")
	w.again("dev/web", map[string]string{"app": "web"})
	w.allowed(closes, lives, opens, never)
}

// historyIsGone demands that no watch can go on from a version.
func (w *world) historyIsGone(version string) {
	w.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", w.Kubeconfig())
	w.must(err)
	c, err := client.NewWithWatch(config, client.Options{})
	w.must(err)
	ctx, cancel := context.WithTimeout(w.t.Context(), settleTime)
	defer cancel()
	changes, err := c.Watch(ctx, &networkingv1.NetworkPolicyList{},
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: version}})
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return
	}
	w.must(err)
	defer changes.Stop()
	var first watch.Event
	select {
	case first = <-changes.ResultChan():
	case <-ctx.Done():
		w.t.Fatalf("waited %v for an answer to a watch from version %s", settleTime, version)
	}
	status, is := first.Object.(*metav1.Status)
	if first.Type != watch.Error || !is || status.Reason != metav1.StatusReasonExpired {
		w.t.Fatalf("version %s isn't too old: %s %v", version, first.Type, first.Object)
	}
}
