package controllers

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"
)

// TestProblemsAreReportedOncePerVersion: an Event that names the fields, again
// only when the policy was changed or made anew.
func TestProblemsAreReportedOncePerVersion(t *testing.T) {
	t.Parallel()
	recorder := events.NewFakeRecorder(10)
	a := &Agent{Events: recorder, Log: testr.New(t)}
	np, err := cases.RenderPolicy("dev/p", `{podSelector: {}, ingress: [{from: [{}], ports: [{port: 0}]}]}`, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	report := func() int {
		a.reportProblems(np, policy.Parse(np).Problems, true)
		n := len(recorder.Events)
		for range n {
			if text := <-recorder.Events; !strings.Contains(text, "UnreadableField") || !strings.Contains(text, "spec.ingress[0].from[0]") || !strings.Contains(text, "; spec.ingress[0].ports[0]") {
				t.Errorf("event %q doesn't name the fields", text)
			}
		}
		return n
	}
	for _, step := range []struct {
		what   string
		change func()
		want   int
	}{
		{"a new policy", func() {}, 1},
		{"seen again", func() {}, 0},
		{"edited", func() { np.Generation++ }, 1},
		{"made anew", func() { np.UID = "other" }, 1},
		{"forgotten and back", func() { a.problems.forget(client.ObjectKeyFromObject(np)) }, 1},
	} {
		step.change()
		if got := report(); got != step.want {
			t.Errorf("%s: %d events, want %d", step.what, got, step.want)
		}
	}
	np.Generation++
	if a.reportProblems(np, policy.Parse(np).Problems, false); len(recorder.Events) > 0 {
		t.Error("two nodes tell of one policy")
	}
	if a.problems.total != 2 {
		t.Errorf("%d problems are counted, want 2", a.problems.total)
	}
}

// TestProblemNote: what doesn't fit is counted, and what is told has a bounded
// length, whatever a field's value is.
func TestProblemNote(t *testing.T) {
	t.Parallel()
	long := policy.Problem{Field: "spec.x", Value: strings.Repeat("\x1b", 5000), Expected: "a number"}
	short := policy.Problem{Field: "spec.y", Value: "1", Expected: "a name"}
	const shortText = `spec.y: "1" is not usable: expected a name`
	for _, c := range []struct {
		problems []policy.Problem
		ends     string
	}{
		{[]policy.Problem{short}, shortText},
		{[]policy.Problem{short, short}, shortText + "; " + shortText},
		{[]policy.Problem{short, long, short}, shortText + "; and 2 more"},
		{[]policy.Problem{long, short}, " ...; and 1 more"},
		{slices.Repeat([]policy.Problem{short}, 51), "; and 28 more"},
	} {
		got := problemNote(c.problems, longestNote)
		if !strings.HasSuffix(got, c.ends) || len(got) > longestNote {
			t.Errorf("%d bytes: %s, want it to end with %q", len(got), got, c.ends)
		}
	}
}

// TestRefusedIsTold: an Event on each policy and each pod that an object which
// the kernel refuses concerns; none on what is gone.
func TestRefusedIsTold(t *testing.T) {
	t.Parallel()
	recorder := events.NewFakeRecorder(10)
	objects := clientfake.NewClientBuilder().WithObjects(
		&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "db"}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "db-0"}},
	).Build()
	a := &Agent{Node: "n1", Reader: objects, Events: recorder}
	pod := func(name string) *policy.EndpointPolicy {
		return &policy.EndpointPolicy{Endpoint: policy.Endpoint{Pod: selector.Pod{Namespace: "dev", Name: name}}}
	}
	a.reportRefused(Refusal{
		Object: nft.Object{Chain: "ingress/1"}, Err: errors.New("no such file"),
		Policies: []policy.Key{{Namespace: "dev", Name: "db"}, {Namespace: "dev", Name: "gone"}}, Endpoints: []*policy.EndpointPolicy{pod("db-0"), pod("gone")},
	})
	for _, want := range []string{
		"Warning RefusedByKernel node n1: the kernel refuses chain ingress/1, so that less is allowed than this policy says: no such file",
		"Warning RefusedByKernel the kernel refuses chain ingress/1, so that the pod has no network: no such file",
	} {
		select {
		case got := <-recorder.Events:
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		default:
			t.Fatalf("no Event, want %q", want)
		}
	}
	if len(recorder.Events) > 0 {
		t.Errorf("one more: %s", <-recorder.Events)
	}
}
