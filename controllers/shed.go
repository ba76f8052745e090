package controllers

import (
	"context"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/policy"
)

// This file tells of policies without rules, because those of their namespace
// cost this node too much.

var policiesShed = prometheus.NewGauge(prometheus.GaugeOpts{
	Name: "sluice_policies_too_costly",
	Help: "Policies that isolate and allow nothing, because those of their namespace cost this node too much; events name them.",
})

// noteShed tells what is new of the policies without rules. It is called with
// the lock held.
func (e *Enforcer) noteShed() {
	now := e.cluster.Shed()
	if len(now) == 0 && len(e.shed) == 0 {
		return
	}
	told := make(map[policy.Key]struct{}, len(now))
	news := map[string][]policy.Key{}
	for _, k := range now {
		told[k] = struct{}{}
		if _, was := e.shed[k]; !was {
			news[k.Namespace] = append(news[k.Namespace], k)
		}
	}
	over := map[string][]policy.Key{}
	for k := range e.shed {
		if _, is := told[k]; !is {
			over[k.Namespace] = append(over[k.Namespace], k)
		}
	}
	e.tellShed(news)
	for namespace, policies := range over {
		slices.SortFunc(policies, policy.Key.Compare)
		e.lines.info(e.log, namespace, "Policies no longer cost too much, or are gone", "policies", policy.List(policies, ", "))
	}
	e.shed = told
	policiesShed.Set(float64(len(now)))
}

// tellShed tells of policies, by namespace and sorted. On all nodes that run
// pods of a namespace it may be the same, so few of them put Events.
func (e *Enforcer) tellShed(news map[string][]policy.Key) {
	if len(news) == 0 {
		return
	}
	nodes := e.cluster.NodesOf(slices.Collect(maps.Keys(news))...)
	for namespace, policies := range news {
		reason := e.cluster.ShedReason(namespace)
		e.lines.info(e.log, namespace, "Policies cost too much, and allow nothing", "policies", policy.List(policies, ", "), "reason", reason)
		if e.OnShed != nil && tellsAmong(e.cluster.Name(), nodes[namespace], namespace, shedTellers) {
			go e.OnShed(policies, reason)
		}
	}
}

// shedTellers is how many of the nodes that run pods of a namespace put an
// Event on its policies. The bound is each node's own, so one may not be
// enough.
const shedTellers = 3

// reportShed puts an Event on each policy that costs too much.
func (a *Agent) reportShed(policies []policy.Key, reason string) {
	if a.Events == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, k := range policies[:min(len(policies), mostWaiting)] {
		np := &networkingv1.NetworkPolicy{}
		if a.Reader.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: k.Name}, np) == nil {
			a.Events.Eventf(np, nil, corev1.EventTypeWarning, "TooCostly", "Enforce", "%s", clampNote("node "+a.Node+": "+reason))
		}
	}
}
