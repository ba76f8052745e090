package cyclonus

import (
	"fmt"
	"slices"
	"testing"

	"github.com/mattfenwick/cyclonus/pkg/connectivity"
	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// The world of cyclonus' generated cases, as its own command makes it.
var (
	namespaces = []string{"x", "y", "z"}
	podNames   = []string{"a", "b", "c"}
	ports      = []int{80, 81}
	protocols  = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
)

const (
	caseCount  = 230
	sampleSize = 40
)

// everything probes all ports of all pods, by the pods' addresses.
func everything() *generator.ProbeConfig {
	return generator.NewAllAvailable(generator.ProbeModePodIP)
}

// generate returns all cases, in cyclonus' order. Blocks of addresses in them are of the family of
// podIP, the address of the pod z/c, but for those cases that speak of 0.0.0.0/0 and the like.
// Probes go to addresses, since there is no DNS.
func generate(podIP string) []*generator.TestCase {
	cases := generator.NewTestCaseGenerator(true, podIP, namespaces, nil, nil).
		GenerateAllTestCases()
	for _, c := range cases {
		for _, step := range c.Steps {
			config := *step.Probe // which cases share
			config.Mode = generator.ProbeModePodIP
			step.Probe = &config
		}
	}
	return cases
}

// sample returns the numbers of a fixed selection of cases, in order: from the last to the first
// what has a tag that none before it has, filled up evenly from the rest. The last ones have the
// most steps.
func sample(cases []*generator.TestCase) []int {
	seen := map[string]bool{}
	var chosen, rest []int
	for i, c := range slices.Backward(cases) {
		before := len(seen)
		for tag := range c.Tags {
			seen[tag] = true
		}
		if len(seen) > before {
			chosen = append(chosen, i)
		} else {
			rest = append(rest, i)
		}
	}
	missing := sampleSize - len(chosen)
	for i := range missing {
		chosen = append(chosen, rest[i*len(rest)/missing])
	}
	slices.Sort(chosen)
	return chosen
}

// namesBlocks says whether a policy of the case has an ipBlock. Then IPv4 and IPv6 may be judged
// differently.
func namesBlocks(c *generator.TestCase) bool {
	for _, step := range c.Steps {
		for _, action := range step.Actions {
			var policy *networkingv1.NetworkPolicy
			switch {
			case action.CreatePolicy != nil:
				policy = action.CreatePolicy.Policy
			case action.UpdatePolicy != nil:
				policy = action.UpdatePolicy.Policy
			default:
				continue
			}
			isBlock := func(p networkingv1.NetworkPolicyPeer) bool { return p.IPBlock != nil }
			for _, rule := range policy.Spec.Ingress {
				if slices.ContainsFunc(rule.From, isBlock) {
					return true
				}
			}
			for _, rule := range policy.Spec.Egress {
				if slices.ContainsFunc(rule.To, isBlock) {
					return true
				}
			}
		}
	}
	return false
}

// apply carries out one action of a case, as cyclonus' interpreter does, whose way to do it isn't
// exported.
func apply(state *connectivity.TestCaseState, a *generator.Action) error {
	switch {
	case a.CreatePolicy != nil:
		return state.CreatePolicy(a.CreatePolicy.Policy)
	case a.UpdatePolicy != nil:
		return state.UpdatePolicy(a.UpdatePolicy.Policy)
	case a.DeletePolicy != nil:
		return state.DeletePolicy(a.DeletePolicy.Namespace, a.DeletePolicy.Name)
	case a.CreateNamespace != nil:
		return state.CreateNamespace(a.CreateNamespace.Namespace, a.CreateNamespace.Labels)
	case a.SetNamespaceLabels != nil:
		return state.SetNamespaceLabels(a.SetNamespaceLabels.Namespace, a.SetNamespaceLabels.Labels)
	case a.DeleteNamespace != nil:
		return state.DeleteNamespace(a.DeleteNamespace.Namespace)
	case a.ReadNetworkPolicies != nil:
		return state.ReadPolicies(a.ReadNetworkPolicies.Namespaces)
	case a.CreatePod != nil:
		return state.CreatePod(a.CreatePod.Namespace, a.CreatePod.Pod, a.CreatePod.Labels)
	case a.SetPodLabels != nil:
		return state.SetPodLabels(a.SetPodLabels.Namespace, a.SetPodLabels.Pod,
			a.SetPodLabels.Labels)
	case a.DeletePod != nil:
		return state.DeletePod(a.DeletePod.Namespace, a.DeletePod.Pod)
	}
	return fmt.Errorf("an action of an unknown kind: %+v", a)
}

func TestSample(t *testing.T) {
	t.Parallel()
	cases := generate("10.0.0.9")
	if len(cases) != caseCount {
		t.Errorf("cyclonus generates %d cases, expected %d", len(cases), caseCount)
	}
	chosen := sample(cases)
	if len(chosen) != sampleSize {
		t.Errorf("the sample has %d cases, expected %d", len(chosen), sampleSize)
	}
	missing := generator.StringSet{}
	for _, c := range cases {
		for tag := range c.Tags {
			missing[tag] = true
		}
	}
	var blocks, steps int
	for _, i := range chosen {
		for tag := range cases[i].Tags {
			delete(missing, tag)
		}
		steps += len(cases[i].Steps)
		if namesBlocks(cases[i]) {
			blocks++
		}
	}
	if len(missing) > 0 {
		t.Errorf("no case of the sample has the tags %q", missing.Keys())
	}
	t.Logf("%d cases of %d, %d steps, %d cases with blocks: %v", len(chosen), len(cases), steps,
		blocks, chosen)
}

// podKey is how the lab and cyclonus name a pod.
func podKey(pod *probe.Pod) string { return pod.PodString().String() }
