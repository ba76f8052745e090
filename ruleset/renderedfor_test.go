package ruleset

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/randomcluster"
)

// TestOriginIsWhoNeedsIt: after any renderings, each object's policies are those whose chains use
// it, and its endpoints those whose pod the name of a chain has.
func TestOriginIsWhoNeedsIt(t *testing.T) {
	t.Parallel()
	sets := 0
	rapid.Check(t, func(t *rapid.T) {
		opts := randomcluster.Options(t)
		c, w := cluster.New(opts), randomcluster.NewWorld(opts)
		r := NewRenderer(Config{})
		have := r.Ruleset(c)
		for range rapid.IntRange(40, 120).Draw(t, "events") {
			w.Event(t, c)
			have.Merge(r.Patch(c, c.Take()))
		}
		users := usersOf(have, c)
		for name := range have.Sets {
			o := nft.Object{Set: name}
			if got := r.Origin(o); !cmp.Equal(keys(users[name]), keys(got.Policies)) ||
				len(got.Endpoints) > 0 {
				t.Errorf("%s is for %+v, want the policies %v", o, got, users[name])
			}
			sets += len(users[name])
		}
		for name := range have.Chains {
			o := nft.Object{Chain: name}
			got := r.Origin(o)
			kind, _, _ := strings.Cut(name, "/")
			byRule := strings.HasPrefix(name, "denied/by/")
			isPods := kind == "pod" || kind == "denied" && !byRule
			isPolicys := byRule || slices.Contains([]string{"policy", "policies", "profile",
				"cluster-policy", "tier"}, kind)
			if isPods != (len(got.Endpoints) == 1) || isPolicys != (len(got.Policies) > 0) {
				t.Errorf("%s is for %+v", o, got)
			}
		}
	})
	if sets == 0 && !testing.Short() { // a few states may have none
		t.Error("no set was used")
	}
}

// originWorld has a pod, dev/db, on this node.
func originWorld() *cluster.Cluster {
	c := cluster.New(cluster.Options{Node: "n1"})
	db := policy.Pod{ID: selector.Pod{Namespace: "dev", Name: "db", UID: "1"}, Node: "n1",
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.3")}}
	c.SetNamespace("dev", nil)
	c.SetNode(policy.Node{Name: "n1",
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
	c.SetPod(db)
	c.SetEndpoint(policy.Endpoint{ID: "a1", Pod: db.ID, Interface: names.PodLink + "1",
		Addresses: db.Addresses})
	return c
}

// fromPods is a policy that lets the pods of its namespace in.
func fromPods(key policy.Key) policy.Policy {
	return policy.Parse(&networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{
			From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}},
		}}},
	})
}

// TestOriginOfMerged: merged rules are for the policies that there are now, also where the rules
// stay as they are when one takes another's place.
func TestOriginOfMerged(t *testing.T) {
	t.Parallel()
	c, r := originWorld(), NewRenderer(Config{})
	var all []policy.Key
	for i := range 10 {
		all = append(all, policy.Key{Namespace: "dev", Name: fmt.Sprintf("p%d", i)})
		c.SetPolicy(fromPods(all[i]))
	}
	c.Take()
	have := r.Ruleset(c)
	c.DeletePolicy(all[9])
	all[9].Name = "p99"
	c.SetPolicy(fromPods(all[9]))
	have.Merge(r.Patch(c, c.Take()))
	used := usersOf(have, c)
	for name := range have.Chains {
		if strings.HasPrefix(name, "policies/") {
			used[name] = all
			if got := r.Origin(nft.Object{Chain: name}); keys(got.Policies) != keys(all) {
				t.Errorf("chain %s is for %+v", name, got)
			}
		}
	}
	if len(used) != 3 { // the chain and a set of each family
		t.Fatalf("control: %d objects are of the policies:\n%s", len(used), have)
	}
}

// TestOriginOfASet: the set of a policy's peers is that policy's.
func TestOriginOfASet(t *testing.T) {
	t.Parallel()
	c := originWorld()
	key := policy.Key{Namespace: "dev", Name: "from-pods"}
	c.SetPolicy(fromPods(key))
	r := NewRenderer(Config{})
	c.Take()
	have := r.Ruleset(c)
	used := usersOf(have, c)
	if len(used) == 0 {
		t.Fatalf("control: no set is used:\n%s", have)
	}
	for set := range used {
		if got := r.Origin(nft.Object{Set: set}); keys(got.Policies) != keys([]policy.Key{key}) {
			t.Errorf("set %s is for %+v", set, got)
		}
	}
}

// usersOf finds the policies in whose chains a set is used, by the ruleset alone.
func usersOf(rs *nft.Ruleset, c *cluster.Cluster) map[string][]policy.Key {
	users := map[string]map[policy.Key]bool{}
	for _, ref := range c.All().Rules {
		main := policyChain(ref)
		for name, chain := range rs.Chains {
			if name != main && !strings.HasPrefix(name, main+"/") {
				continue
			}
			for _, set := range setsOf(chain) {
				for _, k := range c.PoliciesOf(ref) {
					if users[set] == nil {
						users[set] = map[policy.Key]bool{}
					}
					users[set][k] = true
				}
			}
		}
	}
	for name, chain := range rs.Chains {
		if !strings.HasPrefix(name, "tier/") {
			continue
		}
		for _, r := range chain.Rules { // of policies that pass
			name, _, _ := strings.Cut(r.Comment, " rule ")
			for _, set := range setsOf(&nft.Chain{Rules: []nft.Rule{r}}) {
				if users[set] == nil {
					users[set] = map[policy.Key]bool{}
				}
				users[set][policy.Key{Name: name}] = true
			}
		}
	}
	out := map[string][]policy.Key{}
	for set, policies := range users {
		out[set] = slices.SortedFunc(maps.Keys(policies), policy.Key.Compare)
	}
	return out
}

func keys(policies []policy.Key) string { return policy.List(policies, " ") }
