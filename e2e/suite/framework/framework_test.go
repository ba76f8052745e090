package framework

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
)

// script is a source whose attempts have these outcomes, the last one again and again.
type script struct {
	attempts [][]testprogram.Kind
	made     int
}

func (s *script) String() string { return "script" }

func (s *script) TryConnect(_ context.Context, targets ...string) ([]testprogram.Result, error) {
	kinds := s.attempts[min(s.made, len(s.attempts)-1)]
	s.made++
	if kinds == nil {
		return nil, errors.New("exec failed")
	}
	var results []testprogram.Result
	for i, target := range targets {
		results = append(results,
			testprogram.Result{Target: target, OK: kinds[i] == testprogram.OK, Kind: kinds[i]})
	}
	return results, nil
}

func TestExpectations(t *testing.T) {
	const ok, timeout, reset, noName, unreachable = testprogram.OK, testprogram.Timeout,
		testprogram.Reset, testprogram.NoName, testprogram.Unreachable
	for name, test := range map[string]struct {
		expect   func(context.Context, Source, ...string)
		attempts [][]testprogram.Kind
		want     bool
	}{
		"reaches": {ExpectReaches, [][]testprogram.Kind{{ok, ok}}, true},
		"reaches after a while": {ExpectReaches,
			[][]testprogram.Kind{nil, {ok, timeout}, {timeout, ok}, {ok, ok}}, true},
		"never all at once": {ExpectReaches, [][]testprogram.Kind{{ok, timeout}}, false},
		"refused":           {ExpectRefused, [][]testprogram.Kind{{timeout, reset}}, true},
		"refused after a while": {
			ExpectRefused, [][]testprogram.Kind{{ok, timeout}, nil, {timeout, reset}}, true},
		"refused, but not for long": {
			ExpectRefused, [][]testprogram.Kind{{timeout, reset}, {ok, reset}}, false},
		"one is not refused": {ExpectRefused, [][]testprogram.Kind{{timeout, ok}}, false},
		"an unknown name isn't a refusal": {
			ExpectRefused, [][]testprogram.Kind{{timeout, noName}}, false},
		"a missing route isn't a refusal": {
			ExpectRefused, [][]testprogram.Kind{{unreachable, timeout}}, false},
		"a program that fails is no proof": {ExpectRefused, [][]testprogram.Kind{nil}, false},
	} {
		t.Run(name, func(t *testing.T) {
			gomega.RegisterTestingT(t)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			failures := gomega.InterceptGomegaFailures(func() {
				test.expect(ctx, &script{attempts: test.attempts}, "tcp://a:1", "tcp://b:1")
			})
			if got := len(failures) == 0; got != test.want {
				t.Errorf("passed: %v, want %v; failures: %v", got, test.want, failures)
			}
		})
	}
}

func TestFailureNamesTheTarget(t *testing.T) {
	gomega.RegisterTestingT(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	failures := gomega.InterceptGomegaFailures(func() {
		ExpectReaches(ctx,
			&script{attempts: [][]testprogram.Kind{{testprogram.OK, testprogram.Timeout}}},
			"tcp://a:1", "tcp://b:1")
	})
	text := strings.Join(failures, "\n")
	if !strings.Contains(text, "script") || !strings.Contains(text, "tcp://b:1: timeout") ||
		strings.Contains(text, "tcp://a:1") {
		t.Errorf("failures %q, want the source, and the target that failed only", text)
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"tcp://10.0.0.1:80":   Target("tcp", netip.MustParseAddr("10.0.0.1"), 80),
		"udp://[fd00::1]:53":  Target("udp", netip.MustParseAddr("fd00::1"), 53),
		"icmp://[fd00::1]":    Target("icmp", netip.MustParseAddr("fd00::1"), 80),
		"sctp://10.0.0.1:900": Target("sctp", netip.MustParseAddr("10.0.0.1"), 900),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestReadResults(t *testing.T) {
	t.Parallel()
	good := `[{"target":"tcp://a:1","ok":true,"kind":"ok"}]`
	if results, err := readResults(good, 1, nil); err != nil || !results[0].OK {
		t.Errorf("%v, %v", results, err)
	}
	for name, err := range map[string]error{
		"too few":  second(readResults(good, 2, nil)),
		"not JSON": second(readResults("testpod: no", 1, nil)),
		"failed":   second(readResults(good, 1, errors.New("exit code 1"))),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestPodFamilies(t *testing.T) {
	t.Parallel()
	node := func(cidrs ...string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"},
			Spec: corev1.NodeSpec{PodCIDRs: cidrs}}
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"},
		Spec:       corev1.ServiceSpec{IPFamilies: []corev1.IPFamily{corev1.IPv6Protocol}},
	}
	for name, test := range map[string]struct {
		node *corev1.Node
		want []corev1.IPFamily
	}{
		"IPv4": {node("10.244.0.0/24"), []corev1.IPFamily{corev1.IPv4Protocol}},
		"dual stack": {node("fd00::/64", "10.244.0.0/24"),
			[]corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}},
		"no podCIDRs": {node(), []corev1.IPFamily{corev1.IPv6Protocol}},
	} {
		got, err := podFamilies(t.Context(), fake.NewClientset(test.node, service))
		if err != nil || len(got) != len(test.want) || got[0] != test.want[0] {
			t.Errorf("%s: %v (%v), want %v", name, got, err, test.want)
		}
	}
}

func TestApplyCreatesAndReplaces(t *testing.T) {
	t.Parallel()
	c := &TheCluster{Objects: clientfake.NewClientBuilder().Build()}
	policy := func(label string) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": label}}},
		}
	}
	first, next := policy("a"), policy("b")
	if created, err := c.apply(t.Context(), first); err != nil || !created ||
		first.ResourceVersion == "" {
		t.Fatalf("created %v (%v), %+v", created, err, first)
	}
	if created, err := c.apply(t.Context(), next); err != nil || created ||
		next.ResourceVersion == first.ResourceVersion {
		t.Fatalf("created %v (%v), %+v", created, err, next)
	}
	stored := &networkingv1.NetworkPolicy{}
	if err := c.Objects.Get(t.Context(), client.ObjectKeyFromObject(next), stored); err != nil ||
		stored.Spec.PodSelector.MatchLabels["app"] != "b" {
		t.Fatalf("stored %+v (%v)", stored, err)
	}
	// The first call deletes, the second sees that it is gone.
	if err := c.remove(t.Context(), next); err == nil {
		t.Error("removed in the instant in which its deletion began")
	}
	if err := c.remove(t.Context(), next); err != nil {
		t.Error(err)
	}
	if err := c.Objects.Get(t.Context(), client.ObjectKeyFromObject(next),
		stored); !apierrors.IsNotFound(err) {
		t.Errorf("after its removal: %v", err)
	}
}

func TestPodObject(t *testing.T) {
	t.Parallel()
	c := &TheCluster{image: "image:1"}
	pod := c.podObject("ns", PodOptions{Name: "p", Node: "n1", Args: []string{"serve"},
		Mutate: func(pod *corev1.Pod) { pod.Spec.Hostname = "h" }})
	terms := pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	term := terms.NodeSelectorTerms[0].MatchFields[0]
	if term.Key != "metadata.name" || term.Values[0] != "n1" || pod.Spec.NodeName != "" ||
		pod.Spec.Hostname != "h" {
		t.Errorf("%+v", pod.Spec)
	}
	container := pod.Spec.Containers[0]
	if container.Image != "image:1" || container.Command[0] != Program ||
		container.SecurityContext.Privileged != nil {
		t.Errorf("%+v", container)
	}
	anywhere := c.podObject("ns", PodOptions{Name: "p"})
	if anywhere.Spec.Affinity != nil || anywhere.Spec.Tolerations != nil {
		t.Errorf("%+v", anywhere.Spec)
	}
}

func TestFullImageName(t *testing.T) {
	t.Parallel()
	for image, want := range map[string]string{
		"sluice-net/e2e:v0.1.0": "docker.io/sluice-net/e2e:v0.1.0",
		"e2e":                   "docker.io/library/e2e",
		"ghcr.io/a/e2e:1":       "ghcr.io/a/e2e:1",
		"localhost/e2e":         "localhost/e2e",
		"localhost:5000/e2e":    "localhost:5000/e2e",
	} {
		if got := fullImageName(image); got != want {
			t.Errorf("%s: got %s, want %s", image, got, want)
		}
	}
}

func TestDescribeAndTable(t *testing.T) {
	t.Parallel()
	pod := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p",
			Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{
			Phase:  corev1.PodPending,
			PodIPs: []corev1.PodIP{{IP: "10.244.1.2"}},
			ContainerStatuses: []corev1.ContainerStatus{
				{Name: "c", RestartCount: 3,
					State: corev1.ContainerState{
						Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImageNeverPull"}}}},
		},
	}
	text := podTable([]corev1.Pod{pod})
	for _, want := range []string{"10.244.1.2", "app=web", " 3 ", "n1", `ns/p on "n1" is Pending`,
		"ErrImageNeverPull"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestDiagnosticsAreWritten(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("SLUICE_E2E_ARTIFACTS", folder)
	long := strings.Repeat("line\n", 10_000) + "the end"
	sections := []section{{"nft list ruleset on n1", long}, {"pods of a/b", "none"}}
	written, err := writeSections(sections, "Pods reach each other: über alles/now")
	if err != nil || filepath.Dir(written) != folder {
		t.Fatalf("%q, %v", written, err)
	}
	content, err := os.ReadFile(filepath.Join(written, "nft-list-ruleset-on-n1.txt"))
	if err != nil || string(content) != long {
		t.Errorf("%d bytes (%v), want %d", len(content), err, len(long))
	}
	if _, err := os.Stat(filepath.Join(written, "pods-of-a-b.txt")); err != nil {
		t.Error(err)
	}
	report := render(sections, written)
	if len(report) > 2*besideFiles || !strings.Contains(report, "the end") ||
		!strings.Contains(report, written) {
		t.Errorf("%d bytes of report: %.200s", len(report), report)
	}
	t.Setenv("SLUICE_E2E_ARTIFACTS", "")
	if written, err := writeSections(sections, "spec"); written != "" || err != nil {
		t.Errorf("without a folder: %q, %v", written, err)
	}
}

func TestExpectedWorkers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 1, "1": 1, "2": 2, "0": 0, "-1": 0, "two": 0} {
		got, err := expectedWorkers(text)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: got %d (%v), want %d", text, got, err, want)
		}
	}
}

// A node that was just uncordoned or restarted bears taints for a while: it is no worker yet.
func TestTakesPods(t *testing.T) {
	t.Parallel()
	ready := []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	taint := func(effect corev1.TaintEffect) corev1.NodeSpec {
		return corev1.NodeSpec{
			Taints: []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: effect}}}
	}
	for name, c := range map[string]struct {
		spec       corev1.NodeSpec
		conditions []corev1.NodeCondition
		want       bool
	}{
		"ready":               {conditions: ready, want: true},
		"not ready":           {},
		"cordoned":            {spec: corev1.NodeSpec{Unschedulable: true}, conditions: ready},
		"uncordoned just now": {spec: taint(corev1.TaintEffectNoSchedule), conditions: ready},
		"to be left":          {spec: taint(corev1.TaintEffectNoExecute), conditions: ready},
		"better used by others": {spec: taint(corev1.TaintEffectPreferNoSchedule),
			conditions: ready, want: true},
	} {
		got := takesPods(&corev1.Node{Spec: c.spec,
			Status: corev1.NodeStatus{Conditions: c.conditions}})
		if got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
