// Package benchcluster makes the clusters that benchmarks measure with.
package benchcluster

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"
)

// Node is the node that is measured.
const Node = "here"

// localPods is how many pods the node of the benchmarks runs, of the 110 that a node usually can.
const localPods = 100

// New makes a cluster: pods in namespaces of 100, of which the first hundred run on this node, and
// policies spread over the namespaces, each selecting an app, with a label peer, a namespace peer
// and a block.
func New(policies, pods int) *cluster.Cluster {
	c := cluster.New(cluster.Options{Node: Node})
	Fill(c, policies, pods)
	return c
}

// Fill fills a cluster like that, of which Node is this one.
func Fill(c *cluster.Cluster, policies, pods int) {
	c.SetNode(policy.Node{Name: Node,
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"),
			netip.MustParsePrefix("fc00::/7")}})
	for i := range pods {
		p := Pod(i)
		if i%100 == 0 {
			c.SetNamespace(p.ID.Namespace, map[string]string{"team": fmt.Sprint(i / 100 % 10)})
		}
		c.SetPod(p)
		if i < localPods {
			c.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID,
				Interface: fmt.Sprintf(names.PodLink+"%d", i), Addresses: p.Addresses})
		}
	}
	for i := range policies {
		c.SetPolicy(Policy(i))
	}
}

// Pod is one pod of the cluster, by number.
func Pod(i int) policy.Pod {
	name := fmt.Sprintf("pod-%d", i)
	return policy.Pod{
		ID: selector.Pod{Namespace: fmt.Sprintf("ns-%d", i/100), Name: name, UID: name}, Node: Node,
		Labels: selector.LabelSetOf(map[string]string{
			"app": fmt.Sprint(i % 20), "tier": fmt.Sprint(i % 3), "pod": name}),
		Addresses: []netip.Addr{
			netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}),
			netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)}),
		},
	}
}

// Policy selects one app of the first namespace, where the node's pods are.
func Policy(i int) policy.Policy {
	np, err := cases.RenderPolicy(fmt.Sprintf("ns-0/policy-%d", i),
		fmt.Sprintf(`{podSelector: {matchLabels: {app: "%d"}}, policyTypes: [Ingress, Egress],
		ingress: [{from: [{podSelector: {matchLabels: {app: "%d"}}}, {namespaceSelector: {matchLabels: {team: "%d"}}}], ports: [{port: %d}, {port: 443}]}],
		egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.%d.0.0/16]}}]}]}`, i%20, (i+1)%20,
			i%10, 1000+i, i%200), cases.Addr)
	if err != nil {
		panic(err)
	}
	return policy.Parse(np)
}

// Size is how large a cluster is.
type Size struct{ Policies, Pods int }

func (s Size) String() string { return fmt.Sprintf("policies=%d,pods=%d", s.Policies, s.Pods) }

// Sizes are those that are measured, the reference first: a small cluster, one with many policies,
// and a large one; with SLUICE_LONG=1 also what is between them.
func Sizes() []Size {
	if os.Getenv("SLUICE_LONG") != "" {
		return []Size{{10, 1000}, {100, 1000}, {1000, 1000}, {10, 10000}, {100, 10000},
			{1000, 10000}}
	}
	return []Size{{10, 1000}, {1000, 1000}, {1000, 10000}}
}
