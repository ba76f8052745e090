package cluster

import (
	"fmt"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"
)

// BenchmarkTakeSome is how long it takes to take a set of all pods bit by bit, for each of its
// members: much the same, however many there are.
func BenchmarkTakeSome(b *testing.B) {
	for _, nodes := range []int{100, 1000} {
		const podsPerNode, budget = 30, 512
		b.Run(fmt.Sprintf("pods=%d", nodes*podsPerNode), func(b *testing.B) {
			c := allPodsAdmitted(b, nodes, podsPerNode)
			members := 0
			for b.Loop() {
				c.SetPolicy(admitsAll(b))
				for more := true; more; more = c.Backlog() {
					for _, ch := range c.TakeSome(budget).Sets {
						members += len(ch.Add)
					}
				}
				c.DeletePolicy(policy.Key{Namespace: "team-0", Name: "all"})
				c.Take()
			}
			if want := b.N * 2 * nodes * podsPerNode; members != want {
				b.Fatalf("%d members joined, want %d", members, want)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(members), "ns/member")
		})
	}
}

func admitsAll(b *testing.B) policy.Policy {
	b.Helper()
	np, err := cases.RenderPolicy("team-0/all",
		`{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`, cases.Addr)
	if err != nil {
		b.Fatal(err)
	}
	return policy.Parse(np)
}

// allPodsAdmitted has dual-stack pods, and one that is attached here.
func allPodsAdmitted(b *testing.B, nodes, podsPerNode int) *Cluster {
	b.Helper()
	c := New(Options{Node: "node-0"})
	for n := range nodes {
		c.SetNode(largeNode(n))
	}
	c.SetNamespace("team-0", nil)
	for i := range nodes * podsPerNode {
		pod := policy.PodFrom(largePod(i/podsPerNode, i%podsPerNode, 0))
		c.SetPod(pod)
		if i == 0 {
			c.SetEndpoint(policy.Endpoint{ID: "here",
				Pod:       selector.Pod{Namespace: "team-0", Name: pod.ID.Name, UID: pod.ID.UID},
				Interface: "slup0", Addresses: pod.Addresses})
		}
	}
	c.Take()
	return c
}
