package ruleset_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/benchcluster"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// growing are policies of n things each. Every one of them selects the pods of the first
// namespace's first app, of which the node has some.
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
		return []string{`ingress: [{from: [` + list(n, func(i int) string {
			return fmt.Sprintf("{podSelector: {matchLabels: {x: v%d}}}", i)
		}) + `]}]`}
	}},
	{"rules", func(n int) []string {
		return []string{`ingress: [` + list(n, func(i int) string {
			return fmt.Sprintf(
				"{from: [{podSelector: {matchLabels: {x: v%d}}}], ports: [{port: %d}]}", i, 1+i)
		}) + `]`}
	}},
	{"ports", func(n int) []string {
		return []string{`ingress: [{from: [{podSelector: {}}], ports: [` +
			list(n, func(i int) string { return fmt.Sprintf("{port: %d}", 1+2*i) }) + `]}]`}
	}},
	{"values", func(n int) []string {
		return []string{`ingress: [{from: [{podSelector: {matchExpressions: [{key: x, operator: NotIn, values: [` +
			list(n, func(i int) string { return fmt.Sprintf("v%d", i) }) + `]}]}}]}]`}
	}},
	{"policies", func(n int) (out []string) {
		for i := range n {
			out = append(out,
				fmt.Sprintf("ingress: [{from: [{podSelector: {matchLabels: {x: v%d}}}], ports: "+
					"[{port: %d}]}]", i, 1+i))
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

// BenchmarkGrowth: policies of n, 2n and 4n things come, from the event to the kernel. In
// proportion means that the ratios are at most 2 and 4.
func BenchmarkGrowth(b *testing.B) {
	if os.Getenv("SLUICE_LONG") == "" {
		b.Skip("takes minutes: SLUICE_LONG=1")
	}
	for _, what := range growing {
		b.Run(what.name, func(b *testing.B) {
			for _, n := range []int{250, 500, 1000} {
				b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
					benchGrowth(b, what.policies(n))
				})
			}
		})
	}
}

func benchGrowth(b *testing.B, specs []string) {
	b.Helper()
	var policies []policy.Policy
	for i, spec := range specs {
		np, err := cases.RenderPolicy(fmt.Sprintf("ns-0/grows-%d", i),
			`{podSelector: {matchLabels: {app: "1"}}, `+spec+`}`, cases.Addr)
		if err != nil {
			b.Fatal(err)
		}
		policies = append(policies, policy.Parse(np))
	}
	c := benchcluster.New(10, 1000)
	c.Take()
	r := ruleset.NewRenderer(ruleset.Config{})
	table := packetworld.OpenTable(b, testnet.NewNode(b))
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
