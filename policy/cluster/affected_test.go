package cluster_test

import (
	"maps"
	"net/netip"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

// TestAffectedByMembers: who joins or leaves a set concerns its own connections, and not all those
// of the pods whose policies use the set; a policy's rules concern those of the pods that it
// isolates.
func TestAffectedByMembers(t *testing.T) {
	t.Parallel()
	local, other, remote := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"),
		netip.MustParseAddr("10.0.1.1")
	c := cluster.New(cluster.Options{Node: "n1"})
	pod := func(name, app string, a netip.Addr) policy.Pod {
		return policy.Pod{
			ID:     selector.Pod{Namespace: "a", Name: name, UID: name},
			Labels: selector.LabelSetOf(map[string]string{"app": app}), Addresses: []netip.Addr{a}, Node: "n2",
		}
	}
	allow := func(app string) {
		selects := func(app string) metav1.LabelSelector {
			return metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
		}
		from := selects(app)
		c.SetPolicy(policy.Parse(&networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"},
			Spec: networkingv1.NetworkPolicySpec{PodSelector: selects("db"),
				Ingress: []networkingv1.NetworkPolicyIngressRule{{
					From: []networkingv1.NetworkPolicyPeer{{PodSelector: &from}},
				}}},
		}))
	}
	c.SetNamespace("a", nil)
	c.SetNode(policy.Node{Name: "n2", PodCIDRs: prefixes("10.0.1.0/24")})
	for name, at := range map[string]netip.Addr{"db": local, "free": other} {
		c.SetPod(pod(name, name, at))
		c.SetEndpoint(policy.Endpoint{ID: name,
			Pod: selector.Pod{Namespace: "a", Name: name, UID: name}, Addresses: []netip.Addr{at}})
	}
	allow("web")
	c.Take()
	for _, step := range []struct {
		what                string
		change              func()
		tightened, loosened cluster.Ends
	}{
		{"a peer comes", func() { c.SetPod(pod("web", "web", remote)) }, cluster.Ends{},
			cluster.Ends{remote: cluster.AsSource}},
		{"it is relabelled", func() { c.SetPod(pod("web", "cold", remote)) },
			cluster.Ends{remote: cluster.AsSource}, cluster.Ends{}},
		{"and back", func() { c.SetPod(pod("web", "web", remote)) }, cluster.Ends{},
			cluster.Ends{remote: cluster.AsSource}},
		{"it goes", func() { c.DeletePod("a", "web") }, cluster.Ends{remote: cluster.AsSource},
			cluster.Ends{}},
		{"the rules change", func() { allow("cold") }, cluster.Ends{local: cluster.AsDestination},
			cluster.Ends{}},
		{"nothing isolates any more", func() {
			c.DeletePolicy(policy.Key{Namespace: "a", Name: "p"})
		}, cluster.Ends{local: cluster.AsDestination}, cluster.Ends{}},
	} {
		step.change()
		got := c.Affected(c.Take())
		if !maps.Equal(got.Tightened, step.tightened) || !maps.Equal(got.Loosened, step.loosened) {
			t.Errorf("%s: tightened %v and loosened %v, want %v and %v", step.what, got.Tightened,
				got.Loosened, step.tightened, step.loosened)
		}
	}
}
