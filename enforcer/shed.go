package enforcer

import (
	"maps"
	"slices"

	"github.com/sluice-net/sluice/policy"
)

// This file reports the policies that have no rules because the policies of their namespace cost
// this node too much.

// noteShed reports the policies that are new among those without rules. It is called with the lock
// held.
func (e *Enforcer) noteShed() {
	now := e.model.Shed()
	if len(now) == 0 && len(e.shed) == 0 {
		return
	}
	shed := make(map[policy.Key]struct{}, len(now))
	news := map[string][]policy.Key{}
	for _, k := range now {
		shed[k] = struct{}{}
		if _, was := e.shed[k]; !was {
			news[k.Namespace] = append(news[k.Namespace], k)
		}
	}
	over := map[string][]policy.Key{}
	for k := range e.shed {
		if _, is := shed[k]; !is {
			over[k.Namespace] = append(over[k.Namespace], k)
		}
	}
	e.reportShed(news)
	for namespace, policies := range over {
		slices.SortFunc(policies, policy.Key.Compare)
		e.lines.Info(e.opts.Log, namespace, "Policies no longer cost too much, or are gone",
			"policies", policy.List(policies, ", "))
	}
	e.shed = shed
	e.opts.Metrics.policiesShed.Set(float64(len(now)))
}

// Shed are policies of a namespace that are new among those without rules.
type Shed struct {
	Policies []policy.Key // sorted
	Reason   string
	// Nodes are those that run pods of the namespace: the same may be so there.
	Nodes []string
}

// reportShed reports policies, by namespace and sorted.
func (e *Enforcer) reportShed(news map[string][]policy.Key) {
	if len(news) == 0 {
		return
	}
	nodes := e.model.NodesOf(slices.Collect(maps.Keys(news))...)
	for namespace, policies := range news {
		shed := Shed{Policies: policies, Reason: e.model.ShedReason(namespace),
			Nodes: nodes[namespace]}
		e.lines.Info(e.opts.Log, namespace, "Policies cost too much, and allow nothing", "policies",
			policy.List(policies, ", "), "reason", shed.Reason)
		if e.opts.OnShed != nil {
			go e.opts.OnShed(shed)
		}
	}
}
