package kubenetworkpolicies

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/network-policy-api/apis/v1beta1"
	"sigs.k8s.io/yaml"
)

// knownErrors is where kube-network-policies v1.1.1 doesn't do what the API's documentation says,
// or where that leaves room and Sluice has chosen otherwise. The random clusters go round them.
//
// Each is about the connection from x/client to x/server, or from x/server to itself, TCP 80. The
// namespace x has the label team: x, the pods have app: client and app: server.
var knownErrors = []struct {
	name, why string
	tier      string // the spec of a ClusterNetworkPolicy
	policy    string // that of a NetworkPolicy; empty: there is none
	self      bool   // the connection is from x/server to itself
	allowed   bool   // as Sluice reads it
}{
	{
		name: "a pod that NetworkPolicies isolate in the other direction only",
		why: "room: Baseline is for pods \"not selected by\" a NetworkPolicy (Tier); pods are " +
			"isolated for each direction apart, and read so it denies more",
		tier:   `{tier: Baseline, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
		policy: `{podSelector: {matchLabels: {app: server}}, policyTypes: [Egress]}`,
	},
	{
		name: "a peer of an unknown kind beside others, in an Accept rule",
		why:  "the rule matches nothing then (ClusterNetworkPolicyIngressPeer)",
		tier: `{tier: Admin, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{}, {namespaces: {}}]},
			{action: Deny, from: [{namespaces: {}}]}]}`,
	},
	{
		name: "a peer of an unknown kind in a Deny rule",
		why:  "the rule denies all then (ClusterNetworkPolicyIngressPeer)",
		tier: `{tier: Admin, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{}]}]}`,
	},
	{
		name: "a peer of an unknown kind in a Pass rule of egress",
		why:  "the rule denies all then (ClusterNetworkPolicyEgressPeer)",
		tier: `{tier: Admin, subject: {namespaces: {}}, egress: [{action: Pass, to: [{}]}]}`,
	},
	{
		name: "a network that can't be read, in a Deny rule",
		why:  "room: what it may hold is denied, as for an unknown peer",
		tier: `{tier: Admin, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.0.0/8]}]}]}`,
	},
	{
		name: "an unknown protocol in a Deny rule",
		why:  "room: what it may match is denied, as for an unknown peer",
		tier: `{tier: Admin, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{}]}]}`,
	},
	{
		name: "an unknown action",
		why:  "room: one of a newer API may deny",
		tier: `{tier: Admin, subject: {namespaces: {}}, ingress: [{action: Drop, from: [{namespaces: {}}]}]}`,
	},
	{
		name: "a selector that can't be read, in a Deny rule",
		why:  "room: what it may pick is denied, as for an unknown peer",
		tier: `{tier: Admin, subject: {namespaces: {}}, ingress: [{action: Deny,
			from: [{namespaces: {matchExpressions: [{key: team, operator: Odd}]}}]}]}`,
	},
	{
		name: "an unknown tier",
		why:  "room: one of a newer API may come before all others",
		tier: `{tier: Root, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
	},
	{
		name:    "a pod and its own address",
		why:     "room: a pod always reaches itself, as with NetworkPolicies",
		tier:    `{tier: Admin, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
		self:    true,
		allowed: true,
	},
}

// TestKnownErrors: policy says what stands here, and the other one still the opposite. When that
// changes, the exception goes.
func TestKnownErrors(t *testing.T) {
	t.Parallel()
	for _, c := range knownErrors {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := &world{namespaces: map[string]map[string]string{
				"x": {"team": "x", corev1.LabelMetadataName: "x"}}}
			for i, app := range []string{"client", "server"} {
				w.pods = append(w.pods, &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: app, UID: types.UID(app),
						Labels: map[string]string{"app": app}},
					Spec: corev1.PodSpec{NodeName: "node1"},
					Status: corev1.PodStatus{Phase: corev1.PodRunning,
						PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.0.0.%d", i+1)}}},
				})
			}
			tier := &v1beta1.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "t"}}
			mustRead(t, c.tier, &tier.Spec)
			w.tiers = append(w.tiers, tier)
			if c.policy != "" {
				np := &networkingv1.NetworkPolicy{
					ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "p"}}
				mustRead(t, c.policy, &np.Spec)
				w.policies = append(w.policies, np)
			}
			flow := cell{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"),
				corev1.ProtocolTCP, 80}
			if c.self {
				flow.from = flow.to
			}
			if got := w.ours().Explain(flowOf(flow)); got.Allowed != c.allowed {
				t.Errorf("policy says %s; %s", got, c.why)
			}
			theirs, err := w.theirs()
			if err != nil {
				t.Fatal(err)
			}
			allowed := true
			for _, end := range ends {
				got, err := theirs.decide(flow, end)
				if err != nil {
					t.Fatal(err)
				}
				allowed = allowed && got.allowed
			}
			if allowed == c.allowed {
				t.Error("kube-network-policies says the same by now: take this from knownErrors")
			}
		})
	}
}

func mustRead(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}
