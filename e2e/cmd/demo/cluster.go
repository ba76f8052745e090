package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/e2e/lab/wait"
)

// definition is the CustomResourceDefinition of ClusterNetworkPolicies, beside the samples' folder.
const definition = "../components/clusternetworkpolicies-standard/crd.yaml"

// guardrails are an administrator's policies, in the order in which they are applied.
var guardrails = []string{"cluster/guardrail.yaml", "cluster/isolate-tenants.yaml",
	"cluster/default-deny.yaml"}

// clusterSteps are the walk's second part: an administrator's guardrails over the developers'
// policies.
func (d *demo) clusterSteps() []step {
	all := func(lab.Cell) bool { return true }
	acrossTenants := func(c lab.Cell) bool {
		return inDev(c.From) && inProd(c.To) || inProd(c.From) && inDev(c.To)
	}
	apart := func(c lab.Cell) bool { return !acrossTenants(c) }
	betweenPods := func(c lab.Cell) bool {
		return c.From != lab.Outside && c.To != lab.Outside && c.From != c.To
	}
	shut := func(c lab.Cell) bool { return !betweenPods(c) }
	// Pods of dev are isolated now, so their NetworkPolicies decide, and no Baseline tier.
	opened := func(c lab.Cell) bool {
		if !inDev(c.To) || c.From == c.To {
			return shut(c)
		}
		return d.allow80(c) && apart(c)
	}
	apply := func(names ...string) func(context.Context) error {
		return func(ctx context.Context) error { return d.apply(ctx, names...) }
	}
	return []step{
		{
			title: "an administrator's guardrails, ClusterNetworkPolicies: nobody reaches the " +
				"cloud's metadata, nor another tenant",
			holds: apart,
			change: func(ctx context.Context) error {
				if err := d.define(ctx); err != nil {
					return err
				}
				return d.apply(ctx, guardrails[1])
			},
			// by the policy that is applied last
			watch: watch{devPod, prodPod, 80}, after: d.probesStayGreen,
		},
		{
			title: "default-deny in the Baseline tier: no pod reaches another until a " +
				"NetworkPolicy says so", holds: shut,
			change: apply(guardrails[2]), watch: watch{otherDevPod, devPod, 80},
			after: d.probesStayGreen,
		},
		{
			title: "the developers' allow-80-ingress in dev: ports 80 and 443 are open there, " +
				"but not to the other tenant", holds: opened,
			change: apply("allow-80-ingress.yaml"), watch: watch{otherDevPod, devPod, 80},
			after: d.explainGuardrails,
		},
		{
			title: "delete all policies: everything connects again", holds: all,
			change: func(ctx context.Context) error {
				return d.delete(ctx, append([]string{"allow-80-ingress.yaml"}, guardrails...)...)
			},
			watch: watch{prodPod, devPod, 80},
		},
	}
}

// define installs the definition and the first policy, and returns when each agent follows them. An
// API server may put agents off for a second while it begins with a kind.
func (d *demo) define(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(d.samples, definition))
	if err != nil {
		return err
	}
	if err := d.lab.Apply(ctx, string(text)); err != nil {
		return err
	}
	err = d.lab.WaitServed(ctx, "policy.networking.k8s.io/v1beta1", "ClusterNetworkPolicy")
	if err == nil {
		err = d.apply(ctx, guardrails[0])
	}
	for _, node := range d.lab.NodeNames() {
		for err == nil {
			var listing string
			listing, err = d.lab.Nft(ctx, node, "list", "table", "inet", "sluice")
			if strings.Contains(listing, "cluster-policy/guardrail/") {
				break
			}
			if err == nil && !wait.Pause(ctx, wait.PollEvery) {
				err = fmt.Errorf("waiting for the first policy on %s: %w", node, ctx.Err())
			}
		}
	}
	return err
}

// explainGuardrails asks an agent about connections that the guardrails deny.
func (d *demo) explainGuardrails(ctx context.Context) error {
	pod, err := d.lab.Pod(devPod)
	if err != nil {
		return err
	}
	for _, ends := range [][2]string{{devPod, "169.254.169.254"},
		{prodPod, pod.Addr4().String()}} {
		answer, err := d.lab.Why(ctx, pod.Node, ends[0], ends[1], "80")
		if err != nil {
			return err
		}
		fmt.Printf("\n== sluice-agent why %s %s 80\n%s\n", ends[0], ends[1], answer)
		if !strings.Contains(answer, "denied by Admin policy") {
			return fmt.Errorf("%s -> %s: expected that an Admin policy denies it, got %s", ends[0],
				ends[1], answer)
		}
	}
	return d.probesStayGreen(ctx)
}
