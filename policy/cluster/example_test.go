package cluster_test

import (
	"fmt"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

// A default-deny policy, and what it means for a connection.
func ExampleCluster_Explain() {
	c := cluster.New(cluster.Options{Node: "n1"})
	c.SetNode(policy.Node{Name: "n1",
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
	c.SetNamespace("dev", nil)
	web, db := netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.1.3")
	for name, a := range map[string]netip.Addr{"web": web, "db": db} {
		c.SetPod(policy.Pod{ID: selector.Pod{Namespace: "dev", Name: name, UID: name}, Node: "n1",
			Addresses: []netip.Addr{a}})
	}
	c.SetPolicy(policy.Parse(&networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "deny-all"},
		Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	}))
	fmt.Println(c.Explain(policy.Flow{Source: web, Destination: db, Protocol: policy.ProtocolTCP,
		Port: 5432}))
	// Output:
	// denied
	//   egress of dev/web: open, no policy selects the pod
	//   ingress of dev/db: denied, isolated by dev/deny-all
}
