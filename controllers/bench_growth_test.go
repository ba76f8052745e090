package controllers

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/testnet"
)

// growing are policies of n things each. Every one of them selects the pods of
// the first namespace's first app, of which the node has some.
var growing = []struct {
	name     string
	policies func(n int) []string
}{
	{"blocks", func(n int) []string {
		return []string{`ingress: [{from: [` + list(n, func(i int) string {
			return fmt.Sprintf("{ipBlock: {cidr: %d.%d.%d.0/25}}", 20+i>>16, i>>8&255, i&255)
		}) + `], ports: [{port: 80, protocol: UDP}]}]`}
	}},
	{"selectors", func(n int) []string {
		return []string{`ingress: [{from: [` + list(n, func(i int) string { return fmt.Sprintf("{podSelector: {matchLabels: {x: v%d}}}", i) }) + `]}]`}
	}},
	{"rules", func(n int) []string {
		return []string{`ingress: [` + list(n, func(i int) string {
			return fmt.Sprintf("{from: [{podSelector: {matchLabels: {x: v%d}}}], ports: [{port: %d}]}", i, 1+i)
		}) + `]`}
	}},
	{"ports", func(n int) []string {
		return []string{`ingress: [{from: [{podSelector: {}}], ports: [` + list(n, func(i int) string { return fmt.Sprintf("{port: %d}", 1+2*i) }) + `]}]`}
	}},
	{"values", func(n int) []string {
		return []string{`ingress: [{from: [{podSelector: {matchExpressions: [{key: x, operator: NotIn, values: [` +
			list(n, func(i int) string { return fmt.Sprintf("v%d", i) }) + `]}]}}]}]`}
	}},
	{"policies", func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprintf("ingress: [{from: [{podSelector: {matchLabels: {x: v%d}}}], ports: [{port: %d}]}]", i, 1+i))
		}
		return out
	}},
}

func list(n int, item func(i int) string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = item(i)
	}
	return strings.Join(items, ", ")
}

// BenchmarkGrowth: policies of n, 2n and 4n things come, from the event to the
// kernel. In proportion means that the ratios are at most 2 and 4.
func BenchmarkGrowth(b *testing.B) {
	if os.Getenv("SLUICE_LONG") == "" {
		b.Skip("takes minutes: SLUICE_LONG=1")
	}
	for _, what := range growing {
		b.Run(what.name, func(b *testing.B) {
			for _, n := range []int{250, 500, 1000} {
				b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) { benchGrowth(b, what.policies(n)) })
			}
		})
	}
}

func benchGrowth(b *testing.B, specs []string) {
	b.Helper()
	var policies []policy.Policy
	for i, spec := range specs {
		np, err := cases.RenderPolicy(fmt.Sprintf("ns-0/grows-%d", i), `{podSelector: {matchLabels: {app: "1"}}, `+spec+`}`, cases.Addr)
		if err != nil {
			b.Fatal(err)
		}
		policies = append(policies, policy.Parse(np))
	}
	c := benchCluster(10, 1000)
	c.Take()
	r := NewRenderer(RulesetConfig{})
	table := openTable(b, testnet.NewNode(b))
	if err := table.Sync(context.Background(), r.Ruleset(c)); err != nil {
		b.Fatal(err)
	}
	apply := func() {
		if err := table.Apply(context.Background(), r.Patch(c, c.Take())); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		for i := range policies {
			c.SetPolicy(policies[i])
		}
		apply()
		b.StopTimer()
		for i := range policies {
			c.DeletePolicy(policies[i].Key)
		}
		apply()
		b.StartTimer()
	}
	if err := table.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkAttachBeside: a pod goes and comes again, from the event to the
// kernel, while nothing else happens and while the policies of another
// namespace, as costly as may be, are all written anew.
func BenchmarkAttachBeside(b *testing.B) {
	for _, tenant := range []bool{false, true} {
		name := "beside=nothing"
		if tenant {
			name = "beside=tenant"
		}
		b.Run(name, func(b *testing.B) { benchAttachBeside(b, tenant) })
	}
}

func benchAttachBeside(b *testing.B, tenant bool) {
	b.Helper()
	table := openTable(b, testnet.NewNode(b))
	e := NewEnforcer(table, policy.Options{Node: "here"}, RulesetConfig{}, logr.Discard())
	e.cluster = benchCluster(10, 1000)
	p := benchPod(100) // in a namespace of its own
	attach := func(c *policy.Cluster) {
		c.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID, Interface: "slup100", Addresses: p.Addresses})
	}
	e.Update(attach)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	if err := e.AwaitFirstCommit(ctx); err != nil {
		b.Fatal(err)
	}
	round := 0
	var slowest time.Duration
	for b.Loop() {
		if tenant {
			b.StopTimer()
			round++
			e.Update(func(c *policy.Cluster) { setTenant(b, c, round) })
			b.StartTimer()
		}
		start := time.Now()
		if err := e.Detach(ctx, p.ID.Name); err != nil {
			b.Fatal(err)
		}
		e.Update(attach)
		if err := e.await(ctx, func() error { return nil }); err != nil {
			b.Fatal(err)
		}
		slowest = max(slowest, time.Since(start)/2)
	}
	b.ReportMetric(float64(slowest.Nanoseconds()), "slowest-ns")
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	if err := table.Close(); err != nil {
		b.Fatal(err)
	}
}

// setTenant gives the first namespace four policies of 900 rules each, all of
// which are others than in the round before.
func setTenant(b *testing.B, c *policy.Cluster, round int) {
	b.Helper()
	for i := range 4 {
		rules := list(900, func(j int) string {
			return fmt.Sprintf("{from: [{podSelector: {matchLabels: {x: v%d}}}], ports: [{port: %d}]}", (round%2*4+i)*900+j, 1+j)
		})
		np, err := cases.RenderPolicy(fmt.Sprintf("ns-0/tenant-%d", i), `{podSelector: {}, ingress: [`+rules+`]}`, cases.Addr)
		if err != nil {
			b.Fatal(err)
		}
		c.SetPolicy(policy.Parse(np))
	}
}
