package cluster_test

import (
	"net/netip"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/randomcluster"
)

// someFlows are flows between all addresses, of every protocol and port.
func someFlows() (out []policy.Flow) {
	ends := append(slices.Clone(randomcluster.Addresses), randomcluster.Strangers...)
	for _, source := range ends {
		for _, destination := range ends {
			if source.Is4() != destination.Is4() {
				continue
			}
			for _, protocol := range []uint8{1, policy.ProtocolTCP, policy.ProtocolUDP} {
				for _, port := range randomcluster.Ports {
					out = append(out, policy.Flow{Source: source, Destination: destination,
						Protocol: protocol, Port: port})
				}
			}
		}
	}
	return out
}

// allowedHere is Explain's answer, as far as it concerns the node's own pods.
func allowedHere(c *cluster.Cluster, f policy.Flow, local []netip.Addr) bool {
	a := c.Explain(f)
	return (a.Egress == nil || a.Egress.Allowed || !slices.Contains(local, f.Source)) &&
		(a.Ingress == nil || a.Ingress.Allowed || !slices.Contains(local, f.Destination))
}

// TestJudgeAgreesWithTheEvaluator: whatever the cluster.
func TestJudgeAgreesWithTheEvaluator(t *testing.T) {
	t.Parallel()
	flows := someFlows()
	rapid.Check(t, func(t *rapid.T) {
		opts := randomcluster.Options(t)
		c, w := cluster.New(opts), randomcluster.NewWorld(opts)
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			w.Event(t, c)
		}
		// which its pods may always be reached from; the evaluator goes by the pods' objects there
		c.SetNode(policy.Node{Name: "n1"})
		c.Take()
		j, local := c.NewJudge(nil), c.LocalAddresses()
		for _, f := range flows {
			if got, want := j.Allows(f), allowedHere(c, f, local); got != want {
				t.Fatalf("%v: allowed %v, but %s", f, got, c.Explain(f))
			}
		}
	})
}

// TestAffectedFlows: a flow whose verdict changes from one Take to the next has an end that is
// named, under what it became.
func TestAffectedFlows(t *testing.T) {
	t.Parallel()
	flows := someFlows()
	rapid.Check(t, func(t *rapid.T) {
		opts := randomcluster.Options(t)
		c, w := cluster.New(opts), randomcluster.NewWorld(opts)
		verdicts := func() map[policy.Flow]bool {
			out := make(map[policy.Flow]bool, len(flows))
			j := c.NewJudge(nil)
			for _, f := range flows {
				out[f] = j.Allows(f)
			}
			return out
		}
		before, local := verdicts(), c.LocalAddresses()
		for range rapid.IntRange(1, 12).Draw(t, "takes") {
			for range rapid.IntRange(1, 4).Draw(t, "events") {
				w.Event(t, c)
			}
			c.SetNode(policy.Node{Name: "n1"})
			affected := c.Affected(c.Take())
			after, stays := verdicts(), c.LocalAddresses()
			for _, f := range flows {
				tightened, loosened := affected.Tightened.Has(f.Source, f.Destination),
					affected.Loosened.Has(f.Source, f.Destination)
				// Who has left isn't judged any more, and that isn't told.
				left := slices.Contains(local, f.Source) && !slices.Contains(stays, f.Source) ||
					slices.Contains(local, f.Destination) && !slices.Contains(stays, f.Destination)
				if before[f] && !after[f] && !tightened ||
					!before[f] && after[f] && !tightened && !loosened && !left {
					t.Fatalf("%v: was allowed %v, is %v, but affected are %+v", f, before[f],
						after[f], affected)
				}
			}
			before, local = after, stays
		}
	})
}

// TestJudgeExemptions: the node reaches its pods from any address that it has, and its pods are
// reached by themselves.
func TestJudgeExemptions(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	pod, other, extra := addr("10.0.0.1"), addr("10.0.0.2"), addr("172.17.0.1")
	for _, allow := range []bool{false, true} {
		c := cluster.New(cluster.Options{Node: "n1", AllowPodToNode: allow})
		c.SetPolicy(policy.Parse(&networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "deny"},
			Spec: networkingv1.NetworkPolicySpec{
				PolicyTypes: []networkingv1.PolicyType{"Ingress", "Egress"}},
		}))
		p := policy.Pod{Addresses: []netip.Addr{pod}, Node: "n1"}
		p.ID.Namespace, p.ID.Name, p.ID.UID = "a", "p", "u"
		p.Labels = selector.LabelSetOf(map[string]string{})
		c.SetPod(p)
		c.SetNode(policy.Node{Name: "n1", Addresses: []netip.Addr{addr("192.0.2.1")}})
		c.SetNode(policy.Node{Name: "n2", Addresses: []netip.Addr{addr("192.0.2.2")}})
		c.SetEndpoint(policy.Endpoint{ID: "e", Pod: p.ID, Addresses: []netip.Addr{pod}})
		c.Take()
		j := c.NewJudge([]netip.Addr{extra}) // which its object doesn't say
		for _, test := range []struct {
			source, destination netip.Addr
			want                bool
		}{
			{pod, pod, true},
			{other, addr("10.0.0.3"), true}, // nobody of this node
			{pod, other, false},
			{other, pod, false},
			{extra, pod, true},
			{addr("127.0.0.1"), pod, true},
			{addr("192.0.2.1"), pod, false}, // its object says so, which anybody may have written
			{addr("192.0.2.2"), pod, false},
			{pod, extra, allow},
			{pod, addr("192.0.2.1"), false},
			{pod, addr("192.0.2.2"), false},
		} {
			got := j.Allows(policy.Flow{Source: test.source, Destination: test.destination,
				Protocol: policy.ProtocolTCP, Port: 80})
			if got != test.want {
				t.Errorf("AllowPodToNode %v: %s to %s: allowed %v, want %v", allow, test.source,
					test.destination, got, test.want)
			}
		}
	}
}
