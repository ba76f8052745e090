package cyclonus

import (
	"net/netip"
	"testing"

	"github.com/mattfenwick/cyclonus/pkg/connectivity"
	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/kube"
	"github.com/mattfenwick/cyclonus/pkg/matcher"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// TestGeneratedCases: over all generated cases, policy and cyclonus agree on every cell after every
// step, for connections over IPv4 and over IPv6, and with blocks of either. Cyclonus' matcher is
// asked plain and simplified: its interpreter uses the latter.
func TestGeneratedCases(t *testing.T) {
	t.Parallel()
	var count struct{ steps, allowed, denied int }
	for _, blocks := range []string{"IPv4", "IPv6"} {
		start := newResources(t)
		last, err := start.GetPod("z", "c")
		if err != nil {
			t.Fatal(err)
		}
		podIP := last.IP
		if blocks == "IPv6" {
			podIP = sixth(podIP)
		}
		for i, c := range generate(podIP) {
			mock := kube.NewMockKubernetes(1)
			if err := start.CreateResourcesInKube(mock); err != nil {
				t.Fatal(err)
			}
			state := &connectivity.TestCaseState{Kubernetes: mock, Resources: start}
			for j, step := range c.Steps {
				for _, action := range step.Actions {
					if err := apply(state, action); err != nil {
						t.Fatalf("%s, step %d: %v", c.Description, j, err)
					}
				}
				count.steps++
				for _, resources := range []*probe.Resources{state.Resources,
					onIPv6(state.Resources)} {
					allowed, denied := compare(t, resources, state)
					if t.Failed() {
						t.Fatalf("in case %d of %s, %q, after step %d", i, blocks,
							c.Description, j+1)
					}
					count.allowed += allowed
					count.denied += denied
				}
			}
		}
	}
	t.Logf("proof: %d steps: %d cells allowed, %d denied", count.steps, count.allowed, count.denied)
	if count.allowed == 0 || count.denied == 0 {
		t.Error("expected cells of both kinds")
	}
}

// newResources makes the world of the generated cases, in memory.
func newResources(t *testing.T) *probe.Resources {
	t.Helper()
	r, err := probe.NewDefaultResources(kube.NewMockKubernetes(1), namespaces, podNames, ports,
		protocols, nil, 1, true, "")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sixth is the IPv6 address of a pod with this IPv4 address.
func sixth(ip string) string {
	bytes := netip.MustParseAddr("fd00:10::").As16()
	copy(bytes[12:], netip.MustParseAddr(ip).AsSlice())
	return netip.AddrFrom16(bytes).String()
}

// onIPv6 is r with the pods' IPv6 addresses in the place of the others.
func onIPv6(r *probe.Resources) *probe.Resources {
	out := &probe.Resources{Namespaces: r.Namespaces}
	for _, pod := range r.Pods {
		out.Pods = append(out.Pods,
			probe.NewPod(pod.Namespace, pod.Name, pod.Labels, sixth(pod.IP), pod.Containers))
	}
	return out
}

// compare asks both about every cell between the pods of r, and fails the test where they differ.
// It returns how many cells are allowed and denied.
func compare(t *testing.T, r *probe.Resources,
	state *connectivity.TestCaseState) (allowed, denied int) {
	t.Helper()
	cluster := newCluster(t, state.Resources, state.Policies)
	plain, simplified := matcher.BuildNetworkPolicies(false, state.Policies),
		matcher.BuildNetworkPolicies(true, state.Policies)
	for _, job := range new(probe.JobBuilder).GetJobsForProbeConfig(r, everything()).Valid {
		if job.FromKey == job.ToKey {
			continue
		}
		traffic := job.Traffic()
		theirs := plain.IsTrafficAllowed(traffic).IsAllowed()
		if simplified.IsTrafficAllowed(traffic).IsAllowed() != theirs {
			t.Errorf("%s: cyclonus says allowed %v, and simplified the opposite", job.Key(), theirs)
		}
		if answer := cluster.Explain(flowOf(traffic)); answer.Allowed != theirs {
			t.Errorf("%s: cyclonus says allowed %v, policy %v: %s", job.Key(), theirs,
				answer.Allowed, answer)
		}
		if theirs {
			allowed++
		} else {
			denied++
		}
	}
	return allowed, denied
}

// newCluster hands the same objects to policy.
func newCluster(t *testing.T, r *probe.Resources,
	policies []*networkingv1.NetworkPolicy) *cluster.Cluster {
	t.Helper()
	// cyclonus knows of no pod CIDRs
	c := cluster.New(cluster.Options{Node: "node1", PolicyOnly: true})
	c.SetNode(policy.Node{Name: "node1"})
	for name, labels := range r.Namespaces {
		c.SetNamespace(name, labels)
	}
	for _, pod := range r.Pods {
		object := pod.KubePod()
		object.UID, object.Spec.NodeName = types.UID(podKey(pod)), "node1"
		object.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: pod.IP,
			PodIPs: []corev1.PodIP{{IP: pod.IP}, {IP: sixth(pod.IP)}}}
		c.SetPod(policy.PodFrom(object))
	}
	for _, np := range policies {
		parsed := policy.Parse(np)
		if len(parsed.Problems) > 0 {
			t.Errorf("policy %s/%s: %v", np.Namespace, np.Name, parsed.Problems)
		}
		c.SetPolicy(parsed)
	}
	return c
}

// flowOf is the same new connection, as policy is asked about it.
func flowOf(traffic *matcher.Traffic) policy.Flow {
	number := map[corev1.Protocol]uint8{
		corev1.ProtocolTCP: policy.ProtocolTCP, corev1.ProtocolUDP: policy.ProtocolUDP,
		corev1.ProtocolSCTP: policy.ProtocolSCTP,
	}
	return policy.Flow{
		Source:      netip.MustParseAddr(traffic.Source.IP),
		Destination: netip.MustParseAddr(traffic.Destination.IP),
		Protocol:    number[traffic.Protocol], Port: uint16(traffic.ResolvedPort),
	}
}
