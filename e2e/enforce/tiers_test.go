package enforce

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	networkpolicyapi "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/sluice-net/sluice/e2e/assets"
	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/cases"
)

// definition is the name of the CustomResourceDefinition of ClusterNetworkPolicies.
const definition = "clusternetworkpolicies.policy.networking.k8s.io"

// TestClusterPolicies: the cases of ClusterNetworkPolicies that an API server accepts, with the
// pods on two nodes, while their definition comes, changes its versions and goes.
func TestClusterPolicies(t *testing.T) { //nolint:tparallel // the parts take turns on one lab
	t.Parallel()
	l := newLab(t, labName(t, "tiers"), lab.Options{Nodes: 2})
	w := newWorld(t, l, apart)
	for _, node := range l.Nodes() {
		if log := node.AgentLog(); strings.Contains(log, definition) {
			t.Errorf("%s: without the definition the log speaks of it:\n%s", node.Name(), log)
		}
	}
	w.define()
	for _, part := range []struct {
		name string
		do   func(w *world)
	}{
		{"meaning", tieredMeaning},
		{"an agent starts", agentStartsUnderTiers},
		{"the versions change", versionsOfTiersChange},
		{"the definition goes and comes", tiersGoAndCome},
	} {
		t.Run(part.name, func(t *testing.T) {
			w := *w
			w.t = t
			part.do(&w)
		})
	}
}

// tieredMeaning runs the named cases, and the samples.
func tieredMeaning(w *world) {
	samples, err := cases.Samples("../../config/samples/cluster")
	w.must(err)
	for _, tc := range append(cases.Tiers(), samples...) {
		if tc.NoServer {
			continue
		}
		flows := append(cases.MustFlows(tc.Allow), cases.MustFlows(tc.Deny)...)
		w.expect(flows, true) // the control
		w.setPolicies(adapt(tc.Policies))
		w.setTiers(adapt(tc.ClusterPolicies))
		w.denied(tc.Deny...)
		w.allowed(tc.Allow...)
		for key := range tc.Policies {
			w.deletePolicies(key)
		}
		for name := range tc.ClusterPolicies {
			w.deleteTier(name)
		}
		if w.t.Failed() {
			w.t.Fatalf("%s/%s", tc.Line, tc.Name)
		}
	}
}

// guardDB denies what web pods send to dev/db, and guardLate what late pods send to anybody.
const (
	guardDB = `{tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {matchLabels: {env: dev}}, podSelector: {matchLabels: {app: db}}}},
		ingress: [{name: no-web, action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]}]}`
	guardLate = `{tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: late}}}},
		egress: [{action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}]}`
)

var (
	guardedFlows = []string{"dev/web > dev/db tcp/80", "prod/web > dev/db udp/80"}
	openFlows    = []string{"ops/probe > dev/db tcp/80", "dev/web > ops/probe tcp/80"}
)

// agentStartsUnderTiers: an agent that starts has the policies from its first ruleset on, and pods
// that start meanwhile are under them from their first packet.
func agentStartsUnderTiers(w *world) {
	w.allowed(guardedFlows...)
	w.setTiers(map[string]string{"db": guardDB, "late": guardLate})
	w.denied(guardedFlows...)
	stop := w.watchDenied(guardedFlows)
	defer stop()
	for _, node := range w.Nodes() {
		node.KillAgent()
	}
	target := "tcp://" + addrPort(w.addr("ops/probe", "", 4), 80).String()
	for name, app := range map[string]string{"late-denied": "late", "late-open": "open"} {
		pod := latePod(name, "node2", target)
		pod.Namespace, pod.Labels = "dev", map[string]string{"app": app}
		w.must(w.Client().Create(w.t.Context(), pod))
	}
	for _, node := range w.Nodes() {
		w.must(node.StartAgent())
	}
	for name, connects := range map[string]bool{"dev/late-denied": false, "dev/late-open": true} {
		outcome, done := w.awaitFirstConnect(name)
		if !done || outcome.OK != connects {
			w.t.Errorf("%s: its first act was %+v (done %v), expected connected %v", name, outcome,
				done, connects)
		}
		w.must(w.deletePod(name))
	}
	stop()
	w.allowed(openFlows...)
	w.deleteTier("db")
	w.deleteTier("late")
	w.allowed(guardedFlows...)
}

// versionsOfTiersChange: what is denied stays so while the API server serves another version, or
// none that an agent knows; but then no pod starts.
func versionsOfTiersChange(w *world) {
	w.setTiers(map[string]string{"db": guardDB})
	w.denied(guardedFlows...)
	stop := w.watchDenied(guardedFlows)
	defer stop()
	w.serveVersions("v1alpha2")
	w.setTiersIn("v1alpha2", map[string]string{
		"probe": strings.ReplaceAll(guardDB, "podSelector: {matchLabels: {app: web}}",
			"podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}")})
	w.denied(openFlows[:1]...)

	w.serveVersions()
	for _, node := range w.Nodes() {
		w.eventually("Event ClusterPoliciesUnreadable on "+node.Name(), func() bool {
			return w.hasEvent(node, "ClusterPoliciesUnreadable")
		})
	}
	w.must(w.Client().Create(w.t.Context(), waitingPod()))
	w.eventually("the reason why dev/waits doesn't start", func() bool {
		return contains(w.startFailure("dev/waits"), "not all policies are known", definition)
	})
	w.denied(openFlows[:1]...)
	w.serveVersions("v1beta1", "v1alpha2")
	w.must(w.WaitReady(w.t.Context(), "dev/waits"))
	stop()
	w.must(w.deletePod("dev/waits"))
	w.deleteTier("probe")
	w.allowed(openFlows...)
	w.deleteTier("db")
	w.allowed(guardedFlows...)
}

func waitingPod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "waits"},
		Spec: corev1.PodSpec{NodeName: "node1",
			Containers: []corev1.Container{{Name: "main", Image: "main"}}}}
}

// tiersGoAndCome: with the definition all policies go, and new ones come with a new definition.
func tiersGoAndCome(w *world) {
	w.setTiers(map[string]string{"db": guardDB})
	w.denied(guardedFlows...)
	w.must(w.Client().Delete(w.t.Context(), w.definition()))
	w.allowed(guardedFlows...)
	w.eventually("the definition to be gone", func() bool {
		err := w.Client().Get(w.t.Context(), client.ObjectKey{Name: definition}, w.definition())
		return client.IgnoreNotFound(err) == nil && err != nil
	})
	w.define()
	w.setTiers(map[string]string{"db": guardDB})
	w.denied(guardedFlows...)
	w.deleteTier("db")
	w.allowed(guardedFlows...)
}

// define installs the definition, with experimental fields.
func (w *world) define() {
	w.t.Helper()
	crd, err := assets.ReadFile("config/components/clusternetworkpolicies-experimental/crd.yaml")
	w.must(err)
	w.must(w.Apply(w.t.Context(), string(crd)))
	w.awaitServed("v1beta1")
}

func (w *world) definition() *unstructured.Unstructured {
	out := &unstructured.Unstructured{}
	out.SetAPIVersion("apiextensions.k8s.io/v1")
	out.SetKind("CustomResourceDefinition")
	out.SetName(definition)
	return out
}

// awaitServed waits until the API server has the policies in a version.
func (w *world) awaitServed(version string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), settleTime)
	defer cancel()
	w.must(w.WaitServed(ctx, "policy.networking.k8s.io/"+version, "ClusterNetworkPolicy"))
}

// serveVersions says which versions the API server has.
func (w *world) serveVersions(served ...string) {
	w.t.Helper()
	// the API server writes its status, too
	w.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		crd := w.definition()
		err := w.Client().Get(w.t.Context(), client.ObjectKey{Name: definition}, crd)
		w.must(err)
		versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
		w.must(err)
		for _, v := range versions {
			version := v.(map[string]any)
			version["served"] = slices.Contains(served, version["name"].(string))
		}
		w.must(unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions"))
		return w.Client().Update(w.t.Context(), crd)
	}))
	for _, version := range served {
		w.awaitServed(version)
	}
}

// setTiers applies ClusterNetworkPolicies, given as spec by name.
func (w *world) setTiers(specs map[string]string) {
	w.t.Helper()
	w.setTiersIn("v1beta1", specs)
}

func (w *world) setTiersIn(version string, specs map[string]string) {
	w.t.Helper()
	for name, spec := range specs {
		cnp, err := cases.RenderClusterPolicy(name, spec, func(end string, family int) string {
			return w.addr(end, "", family).String()
		})
		w.must(err)
		cnp.APIVersion, cnp.Kind = "policy.networking.k8s.io/"+version, "ClusterNetworkPolicy"
		text, err := json.Marshal(struct {
			metav1.TypeMeta `json:",inline"`

			Metadata map[string]string                         `json:"metadata"`
			Spec     networkpolicyapi.ClusterNetworkPolicySpec `json:"spec"`
		}{cnp.TypeMeta, map[string]string{"name": name}, cnp.Spec})
		w.must(err)
		w.must(w.Apply(w.t.Context(), string(text)))
	}
}

func (w *world) deleteTier(name string) {
	w.t.Helper()
	cnp := &unstructured.Unstructured{}
	cnp.SetAPIVersion("policy.networking.k8s.io/v1beta1")
	cnp.SetKind("ClusterNetworkPolicy")
	cnp.SetName(name)
	w.must(client.IgnoreNotFound(w.Client().Delete(w.t.Context(), cnp)))
}
