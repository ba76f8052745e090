package controllers

import (
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/internal/meaning"
	"github.com/sluice-net/sluice/policy"
)

// TestProblemsAreReportedOncePerVersion: an Event for each field, again only
// when the policy was changed or made anew.
func TestProblemsAreReportedOncePerVersion(t *testing.T) {
	t.Parallel()
	recorder := events.NewFakeRecorder(10)
	a := &Agent{Events: recorder, Log: testr.New(t)}
	np, err := meaning.RenderPolicy("dev/p", `{podSelector: {}, ingress: [{from: [{}], ports: [{port: 0}]}]}`, meaning.Addr)
	if err != nil {
		t.Fatal(err)
	}
	report := func() int {
		a.reportProblems(np, policy.Parse(np).Problems)
		n := len(recorder.Events)
		for range n {
			if text := <-recorder.Events; !strings.Contains(text, "UnreadableField") || !strings.Contains(text, "spec.ingress[0]") {
				t.Errorf("event %q names no field", text)
			}
		}
		return n
	}
	for _, step := range []struct {
		what   string
		change func()
		want   int
	}{
		{"a new policy", func() {}, 2},
		{"seen again", func() {}, 0},
		{"edited", func() { np.Generation++ }, 2},
		{"made anew", func() { np.UID = "other" }, 2},
		{"forgotten and back", func() { a.problems.forget(client.ObjectKeyFromObject(np)) }, 2},
	} {
		step.change()
		if got := report(); got != step.want {
			t.Errorf("%s: %d events, want %d", step.what, got, step.want)
		}
	}
	if a.problems.total != 2 {
		t.Errorf("%d problems are counted, want 2", a.problems.total)
	}
}
