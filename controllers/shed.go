package controllers

import (
	"context"

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
	for _, k := range now {
		told[k] = struct{}{}
		if _, was := e.shed[k]; was {
			continue
		}
		reason := e.cluster.ShedReason(k.Namespace)
		e.log.Info("A policy costs too much, and allows nothing", "policy", k.String(), "reason", reason)
		if e.OnShed != nil {
			go e.OnShed(k, reason)
		}
	}
	for k := range e.shed {
		if _, is := told[k]; !is {
			e.log.Info("A policy no longer costs too much, or is gone", "policy", k.String())
		}
	}
	e.shed = told
	policiesShed.Set(float64(len(now)))
}

// reportShed puts an Event on a policy that costs too much.
func (a *Agent) reportShed(k policy.Key, reason string) {
	if a.Events == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	np := &networkingv1.NetworkPolicy{}
	if a.Reader.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: k.Name}, np) == nil {
		a.Events.Eventf(np, nil, corev1.EventTypeWarning, "TooCostly", "Enforce", "%s", clampNote("node "+a.Node+": "+reason))
	}
}
