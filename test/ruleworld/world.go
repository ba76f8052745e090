// Package ruleworld is a bed for tests of the typed ruleset, without a kernel: a world in which
// policies come and go, whether the kernel could take what becomes of them, and an interpreter that
// sends packets through it.
package ruleworld

import (
	"encoding/json"
	"fmt"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/cases"
)

// World is the world of the meaning cases, with a policy in each namespace, as it would be in the
// kernel.
type World struct {
	Cluster *cluster.Cluster
	Render  *ruleset.Renderer
	Have    *nft.Ruleset
}

// New returns that world.
func New(t testing.TB) *World {
	t.Helper()
	w := &World{Cluster: cluster.New(cluster.Options{Node: cases.NodeName}),
		Render: ruleset.NewRenderer(ruleset.Config{LogPerSecond: 10})}
	for _, ns := range cases.Namespaces() {
		w.Cluster.SetNamespace(ns.Name, ns.Labels)
	}
	w.Cluster.SetNode(policy.NodeFrom(cases.Node()))
	for i, in := range cases.Pods() {
		p := policy.PodFrom(in)
		w.Cluster.SetPod(p)
		w.Cluster.SetEndpoint(policy.Endpoint{ID: fmt.Sprint(i), Pod: p.ID,
			Interface: fmt.Sprintf(names.PodLink+"%d", i), Addresses: p.Addresses})
	}
	for _, namespace := range []string{"dev", "prod"} {
		np := MustDecode[networkingv1.NetworkPolicy](t,
			`{"metadata":{"namespace":"`+namespace+`","name":"stays"},"spec":{"podSelector":{},
			"ingress":[{"from":[{"ipBlock":{"cidr":"192.0.2.0/24","except":["192.0.2.20/32"]}},{"namespaceSelector":{}}],"ports":[{"port":"http"},{"port":53,"protocol":"UDP"}]}],
			"egress":[{"to":[{"podSelector":{"matchLabels":{"app":"db"}}}]}],"policyTypes":["Ingress","Egress"]}}`)
		w.Cluster.SetPolicy(policy.Parse(&np))
	}
	w.Cluster.Take()
	w.Have = w.Render.Ruleset(w.Cluster)
	return w
}

// MustDecode reads JSON.
func MustDecode[T any](t testing.TB, text string) (out T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// Change has the model changed, and the ruleset with it.
func (w *World) Change(f func(c *cluster.Cluster)) {
	f(w.Cluster)
	w.Have.Merge(w.Render.Patch(w.Cluster, w.Cluster.Take()))
}
