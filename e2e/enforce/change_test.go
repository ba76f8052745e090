package enforce

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/cases"
)

// TestChanges: what changes while pods run, or before they do.
func TestChanges(t *testing.T) { //nolint:tparallel // the parts take turns on one lab
	t.Parallel()
	l := newLab(t, labName(t, "changes"), lab.Options{Nodes: 2})
	w := newWorld(t, l, apart)
	for _, part := range []struct {
		name string
		test func(w *world)
	}{
		{"labels of pods and namespaces", labelsChange},
		{"a pod deleted and created again under its name", podComesAgain},
		{"a policy before its pods", policyBeforePods},
		{"an unreadable field", unreadableField},
		{"why", whyAnswers},
		{"denials", denialsAreReported},
		{"health and metrics", healthAndMetrics},
	} {
		t.Run(part.name, func(t *testing.T) {
			w := *w
			w.t = t
			part.test(&w)
		})
	}
}

const fromProdClients = `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {role: client}}}]}]}`

func labelsChange(w *world) {
	const same, across = "prod/web > dev/db tcp/80", "dev/web > dev/db tcp/80"
	w.allowed(same, across)
	w.setPolicies(map[string]string{"dev/p": fromProdClients})
	w.denied(same, across)
	w.label("prod/web", map[string]any{"role": "client"})
	w.allowed(same)
	w.denied(across)
	w.label("dev/web", map[string]any{"role": "client"})
	w.denied(across) // its namespace isn't selected
	w.label("dev", map[string]any{"env": "prod"})
	w.allowed(same, across)
	w.label("prod", map[string]any{"env": nil})
	w.denied(same)
	w.allowed(across)
	w.label("dev/db", map[string]any{"app": "free"})
	w.allowed(same, across)
	w.label("dev/db", map[string]any{"app": "db"})
	w.denied(same)
	w.label("prod", map[string]any{"env": "prod"})
	w.label("dev", map[string]any{"env": "dev"})
	w.label("prod/web", map[string]any{"role": nil})
	w.label("dev/web", map[string]any{"role": nil})
	w.deletePolicies("dev/p")
	w.allowed(same, across)
}

// again deletes a pod of the world and creates it anew, with these labels.
func (w *world) again(name string, labels map[string]string) {
	w.t.Helper()
	for _, in := range cases.Pods() {
		if in.Namespace+"/"+in.Name != name {
			continue
		}
		w.must(w.deletePod(name))
		pod := labPod(in, w.node[name])
		pod.Labels = labels
		w.must(w.Client().Create(w.t.Context(), pod))
		w.must(w.WaitReady(w.t.Context(), name))
	}
}

func podComesAgain(w *world) {
	const flow, other = "prod/web > dev/db tcp/80", "dev/web > dev/db tcp/80"
	w.setPolicies(map[string]string{"dev/p": fromProdClients})
	w.denied(flow)
	// another address, another identity
	w.again("prod/web", map[string]string{"app": "web", "role": "client"})
	w.allowed(flow)
	w.again("dev/db", map[string]string{"app": "db"})
	w.allowed(flow)
	w.denied(other)
	w.again("prod/web", map[string]string{"app": "web", "empty": ""})
	w.denied(flow)
	w.deletePolicies("dev/p")
	w.allowed(flow, other)
}

func policyBeforePods(w *world) {
	w.setPolicies(
		map[string]string{
			"ops/p": `{podSelector: {matchLabels: {app: late}}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: web}]}]}`})
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: "late",
			Labels: map[string]string{"app": "late"}},
		Spec: corev1.PodSpec{NodeName: "node2",
			Containers: []corev1.Container{
				{Name: "main", Image: "main", Ports: []corev1.ContainerPort{
					{Name: "web", ContainerPort: 8000}, {ContainerPort: 80},
				}}}},
	}
	w.must(w.Client().Create(w.t.Context(), pod))
	w.must(w.WaitReady(w.t.Context(), "ops/late"))
	w.node["ops/late"] = "node2"
	w.allowed("dev/web > ops/late tcp/8000", "node > ops/late tcp/80")
	w.denied("dev/web > ops/late tcp/80", "ops/late > dev/web tcp/80", "ops/late > out tcp/80")
	w.deletePolicies("ops/p")
	w.allowed("dev/web > ops/late tcp/80", "ops/late > out tcp/80")
	w.must(w.deletePod("ops/late"))
}

// unreadableField: an API server of today refuses most of what can't be read; a section whose type
// isn't listed it lets in.
func unreadableField(w *world) {
	w.setPolicies(
		map[string]string{
			"dev/p": `{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: [{ports: [{port: 81}]}], egress: [{ports: [{port: 1}]}]}`})
	w.allowed("dev/web > dev/db tcp/81", "dev/db > dev/web tcp/80")
	w.denied("dev/web > dev/db tcp/80")
	w.eventually("an Event that names the field", func() bool {
		var events corev1.EventList
		w.must(w.Client().List(w.t.Context(), &events, client.InNamespace("dev")))
		for _, e := range events.Items {
			if e.InvolvedObject.Name == "p" && e.Reason == "UnreadableField" &&
				len(e.Message) > 11 && e.Message[:11] == "spec.egress" {
				return true
			}
		}
		return false
	})
	w.deletePolicies("dev/p")
	w.allowed("dev/web > dev/db tcp/80")
}

// serviceOf is a Service with one endpoint.
const serviceOf = `{apiVersion: v1, kind: Service, metadata: {namespace: dev, name: behind}, spec: {ports: [{name: http, port: 8080}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: dev, name: behind, labels: {kubernetes.io/service-name: behind}},
 addressType: IPv4, endpoints: [{addresses: [%s]}], ports: [{name: http, port: 80}]}`

func whyAnswers(w *world) {
	w.setPolicies(map[string]string{"dev/p": fromProdClients})
	w.denied("dev/web > dev/db tcp/80")
	for node, want := range map[string]string{"node1": "isolated by dev/p",
		"node2": "isolated by dev/p"} {
		answer, err := w.Why(w.t.Context(), node, "dev/web", "dev/db", "80")
		w.must(err)
		if !contains(answer, "denied", want, "nearest was dev/p ingress rule 0") {
			w.t.Errorf("%s answers:\n%s", node, answer)
		}
	}
	if answer, err := w.Why(w.t.Context(), "node1", "dev/nobody", "dev/db", "80"); err == nil {
		w.t.Errorf("a pod that isn't there: %s", answer)
	}
	if answer, err := w.Why(w.t.Context(), "node1", "dev/web", "10.244.77.77", "80"); err == nil ||
		!contains(err.Error(), "10.244.77.77", "no pod has") {
		w.t.Errorf("an address that nobody has: %s (%v)", answer, err)
	}
	db := w.addr("dev/db", "", 4)
	w.must(w.Apply(w.t.Context(), fmt.Sprintf(serviceOf, db)))
	defer func() {
		w.must(w.Delete(context.WithoutCancel(w.t.Context()), fmt.Sprintf(serviceOf, db)))
	}()
	var service corev1.Service
	w.must(w.Client().Get(w.t.Context(), client.ObjectKey{Namespace: "dev", Name: "behind"},
		&service))
	answer, err := w.Why(w.t.Context(), "node1", "dev/web", service.Spec.ClusterIP, "8080")
	w.must(err)
	if !contains(answer, "is Service dev/behind", db.String()+" TCP 80: denied",
		"isolated by dev/p") {
		w.t.Errorf("of a Service:\n%s", answer)
	}
	w.deletePolicies("dev/p")
	w.allowed("dev/web > dev/db tcp/80")
}
