package policy_test

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// TestAffectedByMembers: who joins or leaves a set concerns its own
// connections, and not all those of the pods whose policies use the set; a
// policy's rules concern those of the pods that it isolates.
func TestAffectedByMembers(t *testing.T) {
	t.Parallel()
	local, other, remote := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.1.1")
	c := policy.NewCluster(policy.Options{Node: "n1"})
	pod := func(name, app string, a netip.Addr) policy.Pod {
		return policy.Pod{
			ID:     selector.Pod{Namespace: "a", Name: name, UID: name},
			Labels: map[string]string{"app": app}, Addresses: []netip.Addr{a},
		}
	}
	allow := func(app string) {
		selects := func(app string) metav1.LabelSelector {
			return metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
		}
		from := selects(app)
		c.SetPolicy(policy.Parse(&networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"},
			Spec: networkingv1.NetworkPolicySpec{PodSelector: selects("db"), Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From: []networkingv1.NetworkPolicyPeer{{PodSelector: &from}},
			}}},
		}))
	}
	c.SetNamespace("a", nil)
	for name, at := range map[string]netip.Addr{"db": local, "free": other} {
		c.SetPod(pod(name, name, at))
		c.SetEndpoint(policy.Endpoint{ID: name, Pod: selector.Pod{Namespace: "a", Name: name, UID: name}, Addresses: []netip.Addr{at}})
	}
	allow("web")
	c.Take()
	for _, step := range []struct {
		what                string
		change              func()
		tightened, loosened []netip.Addr
	}{
		{"a peer comes", func() { c.SetPod(pod("web", "web", remote)) }, nil, []netip.Addr{remote}},
		{"it is relabelled", func() { c.SetPod(pod("web", "cold", remote)) }, []netip.Addr{remote}, nil},
		{"and back", func() { c.SetPod(pod("web", "web", remote)) }, nil, []netip.Addr{remote}},
		{"it goes", func() { c.DeletePod("a", "web") }, []netip.Addr{remote}, nil},
		{"the rules change", func() { allow("cold") }, []netip.Addr{local}, nil},
		{"nothing isolates any more", func() { c.DeletePolicy(policy.Key{Namespace: "a", Name: "p"}) }, []netip.Addr{local}, nil},
	} {
		step.change()
		got := c.Affected(c.Take())
		if tightened := slices.Collect(maps.Keys(got.Tightened)); !slices.Equal(tightened, step.tightened) {
			t.Errorf("%s: tightened %v, want %v", step.what, tightened, step.tightened)
		}
		if loosened := slices.Collect(maps.Keys(got.Loosened)); !slices.Equal(loosened, step.loosened) {
			t.Errorf("%s: loosened %v, want %v", step.what, loosened, step.loosened)
		}
	}
}
