package cyclonus

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// knownErrors is where cyclonus v0.5.6 doesn't do what the API documentation says. The random
// clusters go round them.
//
// In each the policy is of namespace x, and the connection from x/client to x/server, or from
// x/server to itself, TCP 80. The pods' labels are app: client and app: server; namespaces have
// none but their names.
var knownErrors = []struct {
	name string
	// why names what the documentation says.
	why     string
	spec    string
	self    bool // the connection is from x/server to itself
	allowed bool // by the documentation
	panics  bool // cyclonus does, instead of an answer
}{
	{
		name: "NotIn and an object without the key",
		why: "NotIn matches objects that have no label of that key, too " +
			"(concepts/overview/working-with-objects/labels)",
		spec:    `{policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [back]}]}}]}]}`,
		allowed: true,
	},
	{
		name: "NotIn and an object without the key, as the subject",
		why:  "likewise",
		spec: `{podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [back]}]}, policyTypes: [Ingress]}`,
	},
	{
		name: "matchLabels with an empty value and an object without the key",
		why: "a label with an empty value is a label; matchLabels {k: v} is In " +
			"(LabelSelector.matchLabels)",
		spec: `{policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {tier: ""}}}]}]}`,
	},
	{
		name: "no policyTypes",
		why: "a policy without policyTypes isolates for ingress " +
			"(NetworkPolicySpec.policyTypes); servers fill it in, but not in old objects",
		spec: `{podSelector: {}}`, panics: true,
	},
	{
		name: "a prefix with leading zeros",
		why: "servers have let it in, and mean 10.0.0.0/8; such objects stay when newer ones " +
			"refuse them (KEP-4858)",
		spec:    `{policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 010.0.0.0/8}}]}]}`,
		allowed: true, panics: true,
	},
	{
		name: "a peer without fields",
		why: "it stands for nothing, and servers refuse it (NetworkPolicyPeer); read as an " +
			"empty podSelector it would allow",
		spec: `{policyTypes: [Ingress], ingress: [{from: [{}]}]}`,
	},
	{
		name: "a pod to itself",
		why:  "a pod can't block access to itself (concepts/services-networking/network-policies)",
		spec: `{policyTypes: [Ingress, Egress]}`, self: true, allowed: true,
	},
}

// TestKnownErrors: policy follows the documentation, and cyclonus still doesn't. When it does, its
// line above goes, and what avoids it in the generator of random clusters and in the other tests.
func TestKnownErrors(t *testing.T) {
	t.Parallel()
	for _, e := range knownErrors {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			np := &networkingv1.NetworkPolicy{ObjectMeta: meta("x", "policy")}
			if err := yaml.UnmarshalStrict([]byte(e.spec), &np.Spec); err != nil {
				t.Fatal(err)
			}
			namespaceLabels := map[string]string{corev1.LabelMetadataName: "x"}
			pod := func(name, address string) *randomPod {
				return &randomPod{policy.Pod{
					ID:        selector.Pod{Namespace: "x", Name: name, UID: name},
					Labels:    selector.LabelSetOf(map[string]string{"app": name}),
					Addresses: []netip.Addr{netip.MustParseAddr(address)}, Node: "node1",
				}, namespaceLabels}
			}
			client, server := pod("client", "10.0.0.1"), pod("server", "10.0.0.2")
			w := &randomWorld{
				namespaces: map[string]map[string]string{"x": namespaceLabels},
				pods:       []randomPod{*client, *server},
				policies:   []*networkingv1.NetworkPolicy{np},
			}
			from, to := end{client.Addresses[0], client}, end{server.Addresses[0], server}
			if e.self {
				from = to
			}
			traffic := trafficOf(from, to, 80, corev1.ProtocolTCP)
			if answer := w.cluster().Explain(flowOf(traffic)); answer.Allowed != e.allowed {
				t.Errorf("policy says allowed %v, but %s: %s", answer.Allowed, e.why, answer)
			}
			theirs, err := askCyclonus(np, traffic)
			switch {
			case (err != nil) != e.panics:
				t.Errorf("cyclonus: expected a panic %v, got %v", e.panics, err)
			case err == nil && theirs == e.allowed:
				t.Errorf(
					"cyclonus says allowed %v, which is right: this is no known error any more",
					theirs)
			}
		})
	}
}

// askCyclonus returns a panic as an error.
func askCyclonus(np *networkingv1.NetworkPolicy,
	traffic *matcher.Traffic) (allowed bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return matcher.BuildNetworkPolicies(false, []*networkingv1.NetworkPolicy{np}).
		IsTrafficAllowed(traffic).IsAllowed(), nil
}
