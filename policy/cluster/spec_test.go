package cluster_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/randomcluster"
	"github.com/sluice-net/sluice/test/spec"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// trial is a state of a cluster before three readers: the specification (test/spec), which reads
// the objects; the evaluator; and the compiled model.
type trial struct {
	world *spec.World
	c     *cluster.Cluster
	r     *replica
}

// newTrial shows the objects to all three.
func newTrial(o randomcluster.Objects, opts cluster.Options) (*trial, error) {
	tr := &trial{c: cluster.New(opts), r: newReplica()}
	tr.world = &spec.World{
		Namespaces: o.Namespaces, Pods: o.Pods, Nodes: o.Nodes, Policies: o.Policies,
		ClusterPolicies: o.ClusterPolicies, Node: opts.Node, PodToNode: opts.AllowPodToNode,
		PolicyOnly:  opts.PolicyOnly,
		PodNetworks: o.PodNetworks,
	}
	tr.c.SetPodNetworks(o.PodNetworks)
	for _, at := range o.Attachments {
		seen := at.Pod
		p := policy.PodFrom(at.Pod)
		if at.Seen {
			tr.c.SetPod(p)
		} else {
			seen = nil
		}
		tr.c.SetEndpoint(policy.Endpoint{ID: at.ID, Pod: p.ID, Interface: names.PodLink + at.ID,
			Addresses: at.Addresses, FromStatus: at.FromStatus})
		tr.world.Attachments = append(tr.world.Attachments,
			spec.Attachment{Pod: seen, Addresses: at.Addresses, FromStatus: at.FromStatus})
		tr.c.DeletePod(p.ID.Namespace, p.ID.Name) // those that exist come again
	}
	for _, in := range o.Pods {
		tr.c.SetPod(policy.PodFrom(in))
	}
	for _, np := range o.Policies {
		tr.c.SetPolicy(policy.Parse(np))
	}
	for _, cnp := range o.ClusterPolicies {
		tr.c.SetPolicy(policy.ParseCluster(cnp))
	}
	for _, ns := range o.Namespaces {
		tr.c.SetNamespace(ns.Name, ns.Labels)
	}
	for _, n := range o.Nodes {
		tr.c.SetNode(policy.NodeFrom(n))
	}
	return tr, tr.r.apply(tr.c, tr.c.Take())
}

// check holds the three against each other for one flow.
func (tr *trial) check(f spec.Flow) error {
	ruling := tr.world.Rule(f)
	answer := tr.c.Explain(policy.Flow(f))
	if answer.Allowed != ruling.Allowed {
		return fmt.Errorf("%v: the specification says %+v, the evaluator %s", f, ruling, answer)
	}
	for _, d := range policy.Directions {
		side, decision := ruling.Ingress, answer.Ingress
		if d == policy.Egress {
			side, decision = ruling.Egress, answer.Egress
		}
		if err := sameSide(side, decision); err != nil {
			return fmt.Errorf("%v: %s: %w", f, d, err)
		}
		if err := tr.checkCompiled(f, d, side); err != nil {
			return fmt.Errorf("%v: %s: %w", f, d, err)
		}
	}
	return nil
}

func sameSide(side spec.Side, decision *cluster.Decision) error {
	if decision == nil { // no pod, or exempt
		if !side.Allowed {
			return fmt.Errorf("the specification denies (%+v), the evaluator sees nothing to judge",
				side)
		}
		return nil
	}
	var isolating []string
	for _, k := range decision.Isolating {
		isolating = append(isolating, k.String())
	}
	slices.Sort(side.Isolating)
	if side.Allowed != decision.Allowed || !slices.Equal(side.Isolating, isolating) {
		return fmt.Errorf("the specification says %+v, the evaluator %s", side, decision)
	}
	if decision.By != nil && decision.By.Policy.Namespace != "" &&
		!slices.Contains(side.Allowing, decision.By.Policy.String()) {
		return fmt.Errorf("the evaluator names %s, the specification %v", decision.By,
			side.Allowing)
	}
	return nil
}

// checkCompiled asks the endpoint that has the address, if one is enforced. What exempts a flow
// (the pod itself, its own node) isn't compiled, and is asked for here.
func (tr *trial) checkCompiled(f spec.Flow, d policy.Direction, side spec.Side) error {
	at, other := f.Source, f.Destination
	if d == policy.Ingress {
		at, other = other, at
	}
	for _, e := range tr.r.endpoints {
		if !slices.Contains(e.Addresses, at) {
			continue
		}
		exempt := slices.Contains(e.Self, other) || d == policy.Ingress && tr.isNode(other) ||
			tr.world.PodToNode && tr.isNode(other)
		if got := exempt || tr.r.allows(e, d, policy.Flow(f)); got != side.Allowed {
			return fmt.Errorf("the specification says %+v, the compiled model %v", side, got)
		}
		return nil
	}
	// Nothing is enforced here, so nothing passes if the address is attached.
	for _, known := range tr.world.Attachments {
		if slices.Contains(known.Addresses, at) && side.Allowed && !tr.isNode(other) &&
			at != other {
			return fmt.Errorf(
				"the specification says %+v, the compiled model doesn't know the endpoint", side)
		}
	}
	return nil
}

func (tr *trial) isNode(a netip.Addr) bool {
	isPods := slices.ContainsFunc(tr.world.Attachments, func(at spec.Attachment) bool {
		return slices.Contains(at.Addresses, a)
	})
	return !isPods && slices.Contains(tr.world.AddressesOf(tr.world.Node), a)
}

// meaningObjects is the world of the meaning cases, every pod attached.
func meaningObjects(t *testing.T, tc cases.Case) randomcluster.Objects {
	t.Helper()
	policies, err := tc.Render(cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	clusterPolicies, err := tc.RenderCluster(cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	node := cases.Node()
	other := node.DeepCopy()
	other.Name, other.Spec.PodCIDRs = "other", []string{"10.244.2.0/24", "fd00:10:244:2::/64"}
	other.Status.Addresses[0].Address, other.Status.Addresses[1].Address = "198.51.100.2",
		"2001:db8:2::2"
	out := randomcluster.Objects{Namespaces: cases.Namespaces(), Pods: cases.Pods(),
		Policies: policies, ClusterPolicies: clusterPolicies}
	out.Nodes = append(out.Nodes, node, other)
	for _, pod := range out.Pods {
		at := randomcluster.Attached{ID: string(pod.UID), Pod: pod, Seen: true}
		for _, ip := range pod.Status.PodIPs {
			at.Addresses = append(at.Addresses, netip.MustParseAddr(ip.IP))
		}
		out.Attachments = append(out.Attachments, at)
	}
	return out
}

// TestSpecOnMeaning: three readings of every case of the meaning table agree on every flow that its
// objects can tell apart, and with the table.
func TestSpecOnMeaning(t *testing.T) {
	t.Parallel()
	var flows atomic.Int64
	all := slices.Concat(cases.All(), cases.Tiers())
	for _, tc := range all {
		t.Run(tc.Line+"/"+tc.Name, func(t *testing.T) {
			t.Parallel()
			for _, podToNode := range []bool{false, true} {
				tr, err := newTrial(meaningObjects(t, tc),
					cluster.Options{Node: cases.NodeName, AllowPodToNode: podToNode})
				if err != nil {
					t.Fatal(err)
				}
				tr.world.Flows(func(f spec.Flow) {
					flows.Add(1)
					if err := tr.check(f); err != nil && !t.Failed() {
						t.Error(err)
					}
				})
				if podToNode {
					continue // the table is about the default
				}
				expectRuling(t, tr.world, tc.Allow, true)
				expectRuling(t, tr.world, tc.Deny, false)
			}
		})
	}
	t.Cleanup(func() { t.Logf("proof: %d cases, %d flows", len(all), flows.Load()) })
}

func expectRuling(t *testing.T, w *spec.World, texts []string, want bool) {
	t.Helper()
	for _, mf := range cases.MustFlows(texts) {
		for _, family := range mf.Families {
			if got := w.Rule(spec.Flow(worldFlow(mf, family))); got.Allowed != want {
				t.Errorf("%s (IPv%d): the specification says %+v", mf, family, got)
			}
		}
	}
}

// flowsOfAState is how many flows of one random state are judged; the rest are those of other
// states.
const flowsOfAState = 600

// TestSpecOnRandomClusters: the three readings agree on whatever objects there may be.
// SLUICE_LONG=1 judges every flow of every state.
func TestSpecOnRandomClusters(t *testing.T) {
	t.Parallel()
	var states, flows atomic.Int64
	rapid.Check(t, func(t *rapid.T) {
		policyOnly := rapid.Bool().Draw(t, "policy only")
		objects := randomcluster.ObjectsGen(policyOnly).Draw(t, "objects")
		tr, err := newTrial(objects, cluster.Options{Node: randomcluster.OwnNode,
			PolicyOnly: policyOnly, AllowPodToNode: rapid.Bool().Draw(t, "pod to node")})
		if err != nil {
			t.Fatal(err)
		}
		var all []spec.Flow
		tr.world.Flows(func(f spec.Flow) { all = append(all, f) })
		states.Add(1)
		step, start := max(1, len(all)/flowsOfAState), 0
		if os.Getenv("SLUICE_LONG") != "" {
			step = 1
		} else {
			start = rapid.IntRange(0, step-1).Draw(t, "first flow")
		}
		for i := start; i < len(all); i += step {
			flows.Add(1)
			if err := tr.check(all[i]); err != nil {
				text, _ := json.Marshal(objects)
				t.Fatalf("%v\n%s", err, text)
			}
		}
	})
	t.Logf("proof: %d states, %d flows", states.Load(), flows.Load())
}
