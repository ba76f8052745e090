package cluster_test

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/test/cases"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// TestAllReadersMatchAlike: a named port of egress counts only for a pod that is known well enough,
// and Explain, a Judge and the Meaning say so alike.
func TestAllReadersMatchAlike(t *testing.T) {
	t.Parallel()
	const policies = `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}], to: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "::/0"}}]}]}`
	for _, tt := range []struct {
		name    string
		destroy func(c *cluster.Cluster)
		want    bool
	}{
		{"a known pod's named port", func(*cluster.Cluster) {}, true},
		{"the namespace isn't known",
			func(c *cluster.Cluster) { c.DeleteNamespace("prod") }, false},
		{"the pod isn't there", func(c *cluster.Cluster) { c.DeletePod("prod", "web") }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := worldCluster()
			web := policy.PodFrom(findPod(t, "prod", "web"))
			web.Ports = policy.PodPortsOf(policy.PodPort{NamedPort: policy.NamedPort{
				Protocol: policy.ProtocolTCP, Name: "http"}, Number: 8080})
			c.SetPod(web)
			c.SetPolicy(policy.Parse(render(t, "dev/out", policies)))
			tt.destroy(c)
			c.Take()
			source, destination := cases.Addr("dev/web", 4), cases.Addr("prod/web", 4)
			f := policy.Flow{Source: netip.MustParseAddr(source),
				Destination: netip.MustParseAddr(destination), Protocol: policy.ProtocolTCP,
				Port: 8080}
			if a := c.Explain(f); a.Egress == nil || a.Egress.Allowed != tt.want {
				t.Errorf("Explain: %s", a)
			}
			if got := c.NewJudge(nil).Allows(f); got != tt.want {
				t.Errorf("the Judge says %v", got)
			}
			pod := policy.PodFrom(findPod(t, "dev", "web")).ID
			got := c.Snapshot().Meaning().Allowed(pod, policy.Egress, f.Destination)
			if has(got, f.Protocol, f.Port) != tt.want {
				t.Errorf("the Meaning says %+v", got)
			}
		})
	}
}

func findPod(t *testing.T, namespace, name string) *corev1.Pod {
	t.Helper()
	for _, p := range cases.Pods() {
		if p.Namespace == namespace && p.Name == name {
			return p
		}
	}
	t.Fatalf("the cases have no pod %s/%s", namespace, name)
	return nil
}
