package ruleset

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/randomcluster"
)

// TestOriginIsWhoNeedsIt: whatever was rendered before, each object's policies are those in whose chains it is
// used, and its endpoints those whose pod the name of a chain has.
func TestOriginIsWhoNeedsIt(t *testing.T) {
	t.Parallel()
	sets := 0
	rapid.Check(t, func(t *rapid.T) {
		opts := policy.Options{Node: "n1", ForeignPods: rapid.Bool().Draw(t, "foreign pods")}
		c, w := policy.NewCluster(opts), randomcluster.NewWorld(opts)
		r := NewRenderer(Config{})
		have := r.Ruleset(c)
		for range rapid.IntRange(5, 60).Draw(t, "events") {
			w.Event(t, c)
			have.Merge(r.Patch(c, c.Take()))
		}
		users := usersOf(have, c)
		for name := range have.Sets {
			o := nft.Object{Set: name}
			if got := r.Origin(o); !cmp.Equal(keys(users[name]), keys(got.Policies)) || len(got.Endpoints) > 0 {
				t.Errorf("%s is for %+v, want the policies %v", o, got, users[name])
			}
			sets += len(users[name])
		}
		for name := range have.Chains {
			o := nft.Object{Chain: name}
			got := r.Origin(o)
			kind, _, _ := strings.Cut(name, "/")
			isPods := kind == "pod" || kind == "denied"
			isPolicys := kind == "policy" || kind == "profile"
			if isPods != (len(got.Endpoints) == 1) || isPolicys != (len(got.Policies) > 0) {
				t.Errorf("%s is for %+v", o, got)
			}
		}
	})
	if sets == 0 {
		t.Error("no set was used")
	}
}

// usersOf finds the policies in whose chains a set is used, by the ruleset alone.
func usersOf(rs *nft.Ruleset, c *policy.Cluster) map[string][]policy.Key {
	out := map[string][]policy.Key{}
	for _, k := range c.Policies() {
		used := map[string]bool{}
		for _, d := range policy.Directions {
			main := policyChain(policy.Ref{Policy: k, Direction: d})
			for name, chain := range rs.Chains {
				if name != main && !strings.HasPrefix(name, main+"/") {
					continue
				}
				for _, rule := range chain.Rules {
					for _, s := range rule.Statements {
						if in, is := s.(nft.InSet); is && !used[in.Set] {
							used[in.Set] = true
							out[in.Set] = append(out[in.Set], k)
						}
					}
				}
			}
		}
	}
	return out
}

func keys(policies []policy.Key) string { return policy.List(policies, " ") }
