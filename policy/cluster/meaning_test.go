package cluster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/test/cases"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// TestMeaning holds every case of the meaning table against the evaluator and against the compiled
// model, which share only the parsed policy.
func TestMeaning(t *testing.T) {
	t.Parallel()
	samples, err := cases.Samples("../../config/samples/cluster")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range slices.Concat(cases.All(), cases.Tiers(), samples) {
		t.Run(tc.Line+"/"+tc.Name, func(t *testing.T) {
			t.Parallel()
			c := worldCluster()
			r := newReplica()
			if err := r.apply(c, c.Take()); err != nil {
				t.Fatal(err)
			}
			flows := append(cases.MustFlows(tc.Allow), cases.MustFlows(tc.Deny)...)
			expectAll(t, c, r, flows, true, "before the policies")

			var problems []string
			policies, err := tc.Render(cases.Addr)
			if err != nil {
				t.Fatal(err)
			}
			for _, np := range policies {
				p := policy.Parse(np)
				for _, problem := range p.Problems {
					problems = append(problems, problem.Field)
				}
				c.SetPolicy(p)
			}
			clusterPolicies, err := tc.RenderCluster(cases.Addr)
			if err != nil {
				t.Fatal(err)
			}
			for _, cnp := range clusterPolicies {
				p := policy.ParseCluster(cnp)
				for _, problem := range p.Problems {
					problems = append(problems, problem.Field)
				}
				c.SetPolicy(p)
			}
			if err := r.apply(c, c.Take()); err != nil {
				t.Fatal(err)
			}
			expectAll(t, c, r, cases.MustFlows(tc.Allow), true, "allowed")
			expectAll(t, c, r, cases.MustFlows(tc.Deny), false, "denied")
			slices.Sort(problems)
			want := slices.Sorted(slices.Values(tc.Problems))
			if !slices.Equal(problems, want) {
				t.Errorf("unreadable fields:\n got %s\nwant %s", strings.Join(problems, "\n     "),
					strings.Join(want, "\n     "))
			}

			for _, np := range policies {
				c.DeletePolicy(policy.Key{Namespace: np.Namespace, Name: np.Name})
			}
			for _, cnp := range clusterPolicies {
				c.DeletePolicy(policy.Key{Name: cnp.Name})
			}
			if err := r.apply(c, c.Take()); err != nil {
				t.Fatal(err)
			}
			expectAll(t, c, r, flows, true, "after the policies")
			if len(r.rules)+len(r.sets) > 0 {
				t.Errorf("left behind: %d rules, %d sets", len(r.rules), len(r.sets))
			}
		})
	}
}

func expectAll(t *testing.T, c *cluster.Cluster, r *replica, flows []cases.Flow, want bool,
	when string) {
	t.Helper()
	for _, mf := range flows {
		for _, family := range mf.Families {
			f := worldFlow(mf, family)
			name := fmt.Sprintf("%s (IPv%d) %s", mf, family, when)
			if a := c.Explain(f); a.Allowed != want {
				t.Errorf("evaluator: %s: want %v: %s", name, want, a)
			}
			if got := r.allowsFlow(f, policy.NodeFrom(cases.Node())); got != want {
				t.Errorf("compiled model: %s: got %v", name, got)
			}
		}
	}
}
