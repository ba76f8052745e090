package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// worstCases are single changes that concern as many pods as one change can, for policies of the
// real node's pods. Of each: how long until all of it is in the kernel, the agent's CPU, its memory
// then, what the kernel's memory has grown by, and how many elements the sets have more than
// before.
func (s *scale) worstCases() {
	s.b.Helper()
	w := &worst{s, s.elements()}
	all := metav1.LabelSelector{}
	ofAllPods := func(i int) client.Object {
		return s.fromPods(fmt.Sprintf("everything-%d", i), i%s.homes(), all, all)
	}
	w.change("policy-of-all-pods", s.pods(), s.put(ofAllPods(0)))
	w.change("100-policies-of-all-pods", s.pods(), func() error {
		return s.lab.Store(s.b.Context(), numbered(100, ofAllPods))
	})
	w.change("none-of-them", 0, func() error {
		return s.lab.Discard(s.b.Context(), numbered(100, ofAllPods))
	})

	const values = podNumbers / 3
	third := func(first int) client.Object {
		in := metav1.LabelSelectorRequirement{Key: "num", Operator: metav1.LabelSelectorOpIn}
		for i := range values {
			in.Values = append(in.Values, strconv.Itoa(first+i))
		}
		return s.fromPods("third", 0, all,
			metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{in}})
	}
	members := s.pods() / podNumbers * values
	w.change("policy-of-a-third", members, s.put(third(0)))
	w.change("policy-of-another-third", members, s.put(third(values)))
	w.change("none-of-it", 0, func() error {
		return s.lab.Discard(s.b.Context(), slices.Values([]client.Object{third(0)}))
	})

	crowd := min(10_000, 2*(s.nodes-1))
	must(s.b, s.put(s.crowd(false))())
	must(s.b, s.lab.Store(s.b.Context(), numbered(crowd, s.crowdPod)))
	must(s.b, s.put(s.fromPods("crowd", 0,
		metav1.LabelSelector{MatchLabels: map[string]string{"crowd": "yes"}}, all))())
	s.within("agent that knows the crowd", func() error {
		text, err := s.metrics.text()
		return errors.Join(err, text.atLeast("sluice_pods ", float64(s.pods()+crowd)))
	})
	w.change("namespace-gets-a-label", crowd, s.put(s.crowd(true)))
	w.change("namespace-loses-it", 0, s.put(s.crowd(false)))
}

// worst knows how many elements the sets had before.
type worst struct {
	*scale
	before int
}

// change makes a change after which the sets have so many pods more than before, of both families.
func (w *worst) change(what string, pods int, change func() error) {
	w.b.Helper()
	commits := w.commits().GetSampleCount()
	kernel, cpu, start := kernelMemory(w.b), w.cpu(), time.Now()
	must(w.b, change())
	figures := map[string]float64{"s": w.settled(commits).Sub(start).Seconds(),
		"CPU-s": (w.cpu() - cpu).Seconds(), "MiB": w.memory()["MiB"],
		"kernel-MiB": (kernelMemory(w.b) - kernel) / (1 << 20)}
	elements := w.elements() - w.before
	figures["elements"] = float64(elements)
	const some = 100 // pods that churn has changed or left out
	if want := 2 * pods; elements < want-want/10-some || elements > want+want/10+some {
		w.b.Errorf("%s: the sets have %d elements more than at first, expected about 2 for each "+
			"of %d pods", what, elements, pods)
	}
	w.report(what, figures)
}

// settled waits until a commit has come and nothing waits to be written, and returns since when.
// The agent has to say so for a while: a change of several objects may come in pieces.
func (w *worst) settled(commits uint64) (since time.Time) {
	w.b.Helper()
	const often, forAWhile = 50 * time.Millisecond, 500 * time.Millisecond
	poll(w.b, often, scalePatience, "ruleset that waits for nothing", func() error {
		text, err := w.metrics.text()
		if err != nil {
			return err
		}
		behind, err := text.sum("sluice_ruleset_behind_seconds ")
		if err != nil {
			return err
		}
		now, err := text.sum("sluice_event_to_commit_seconds_count ")
		if err != nil {
			return err
		}
		if behind > 0 || now <= float64(commits) {
			since = time.Time{}
			return fmt.Errorf("%g s behind after %g commits", behind, now-float64(commits))
		}
		if since.IsZero() {
			since = time.Now()
		}
		if quiet := time.Since(since); quiet < forAWhile {
			return fmt.Errorf("quiet for %s", quiet)
		}
		return nil
	})
	return since
}

// elements counts the addresses that the listing of all sets has.
func (s *scale) elements() (n int) {
	s.b.Helper()
	listing, err := s.real.Nft(s.b.Context(), "list", "sets", "inet")
	must(s.b, err)
	for word := range strings.FieldsSeq(listing) {
		if _, err := netip.ParseAddr(strings.TrimSuffix(word, ",")); err == nil {
			n++
		}
	}
	return n
}

// kernelMemory is what the kernel has for itself and can't give back, in bytes. Others on the
// machine have a part in it.
func kernelMemory(b *testing.B) (bytes float64) {
	b.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	must(b, err)
	for _, part := range []string{"SUnreclaim:", "VmallocUsed:"} {
		kB, err := scrape(strings.ReplaceAll(string(text), " kB\n", "\n")).sum(part)
		must(b, err)
		bytes += kB * 1024
	}
	return bytes
}

// homes is how many namespaces have pods of the real node.
func (s *scale) homes() int { return min(localPods, s.namespaces()) }

// put stores an object.
func (s *scale) put(o client.Object) func() error {
	return func() error { return s.lab.Store(s.b.Context(), slices.Values([]client.Object{o})) }
}

// fromPods is a policy for all pods of one of the first namespaces, which have pods of the real
// node. It admits pods by selectors.
func (s *scale) fromPods(name string, namespace int, namespaces,
	pods metav1.LabelSelector) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: s.meta("policy", spaceName(namespace), name, nil),
		Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{
			{From: []networkingv1.NetworkPolicyPeer{
				{NamespaceSelector: &namespaces, PodSelector: &pods}}}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	}
}

// crowd is a namespace with very many pods, with a label or without.
func (s *scale) crowd(labelled bool) client.Object {
	n := s.namespace(0)
	n.Name, n.UID = "crowd", "namespace/crowd"
	n.Labels = map[string]string{corev1.LabelMetadataName: "crowd"}
	if labelled {
		n.Labels["crowd"] = "yes"
	}
	return n
}

// crowdPod is pod number i of that namespace, two on each node but the first, with addresses that
// none of the population has.
func (s *scale) crowdPod(i int) client.Object {
	node := 1 + i%(s.nodes-1)
	pod := s.pod(node*podsPerNode, podState{})
	pod.Namespace, pod.Name = "crowd", fmt.Sprintf("crowd-%d", i)
	pod.UID = uidOf(fmt.Sprintf("crowd/%d", i))
	pod.Labels = map[string]string{"app": "crowd"}
	last := 253 + i/(s.nodes-1)
	ip4 := fmt.Sprintf("10.%d.%d.%d", 128+node>>8, node&255, last)
	ip6 := fmt.Sprintf("fd00:10:244:%x::%x", 0x1000+node, last)
	pod.Status.PodIP, pod.Status.PodIPs = ip4, []corev1.PodIP{{IP: ip4}, {IP: ip6}}
	return pod
}
