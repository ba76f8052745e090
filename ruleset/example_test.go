package ruleset_test

import (
	"fmt"
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/selector"
)

// A default-deny policy for one pod, as the chain of the pod in the ruleset.
func ExampleRenderer() {
	c := cluster.New(cluster.Options{Node: "n1"})
	db := policy.Pod{ID: selector.Pod{Namespace: "dev", Name: "db", UID: "1"}, Node: "n1",
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.3")}}
	c.SetNode(policy.Node{Name: "n1",
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
	c.SetPod(db)
	c.SetEndpoint(policy.Endpoint{ID: "a1", Pod: db.ID, Interface: "slup1",
		Addresses: db.Addresses})
	c.SetPolicy(policy.Parse(&networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "deny-all"},
		Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	}))
	c.Take()
	rules := ruleset.NewRenderer(ruleset.Config{}).Ruleset(c)
	for name, chain := range rules.Chains {
		if strings.HasPrefix(name, "pod/") {
			fmt.Print(chain)
		}
	}
	// Output:
	// chain pod/dev/db/f55ff16f66f43360/ingress {
	// 		ip saddr 10.244.1.3 accept comment "the pod itself"
	// 		ct state invalid drop
	// 		jump profile/289b45b3ff60e344/ingress
	// 		jump denied/dev/db/f55ff16f66f43360/ingress
	// 	}
}
