package ruleset_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/benchcluster"
	"github.com/sluice-net/sluice/test/cases"
)

// ways counts the chains on all ways from hooks through jumps and maps. A kernel before Linux 6.18
// goes each of them when a jump is added.
func ways(r *nft.Ruleset) (n int) {
	known := map[string]int{}
	var from func(chain string) int
	from = func(chain string) int {
		if n, ok := known[chain]; ok {
			return n
		}
		n := 1
		for _, rule := range r.Chains[chain].Rules {
			for _, s := range rule.Statements {
				switch s := s.(type) {
				case nft.Do:
					if s.Kind == nft.Jump {
						n += from(s.Chain)
					}
				case nft.Dispatch:
					for _, v := range r.Sets[s.Map].Elements {
						if v.Kind == nft.Jump {
							n += from(v.Chain)
						}
					}
				}
			}
		}
		known[chain] = n
		return n
	}
	for name, c := range r.Chains {
		if c.Base != nil {
			n += from(name)
		}
	}
	return n
}

// TestWaysAreInProportion: twice the pods, and twice the rules over them, have at most so many
// times the ways: in a table where all pods meet all rules there are no more than pods times rules.
func TestWaysAreInProportion(t *testing.T) {
	t.Parallel()
	count := func(pods, rules int) int {
		c := cluster.New(cluster.Options{Node: benchcluster.Node})
		c.SetNamespace("ns-0", nil)
		for i := range pods {
			p := benchcluster.Pod(i)
			c.SetPod(p)
			c.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID, Addresses: p.Addresses,
				Interface: fmt.Sprintf("slup%d", i)})
		}
		var texts []string
		for i := range rules {
			texts = append(texts,
				fmt.Sprintf("{action: Deny, from: [{pods: {podSelector: {matchLabels: {app: a%d}}}}]}", i))
		}
		cnp, err := cases.RenderClusterPolicy("guard", fmt.Sprintf(
			"{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [%s]}",
			strings.Join(texts, ", ")), cases.Addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetPolicy(policy.ParseCluster(cnp))
		c.Take()
		return ways(ruleset.NewRenderer(ruleset.Config{}).Ruleset(c))
	}
	one, pods, rules := count(10, 10), count(20, 10), count(10, 20)
	t.Logf("ways: %d, with twice the pods %d, with twice the rules %d", one, pods, rules)
	if one < 10*10 {
		t.Errorf("control: %d ways: expected one for each pod and rule", one)
	}
	if pods > 2*one || rules > 2*one {
		t.Error("expected at most twice as many")
	}
}
