package controllers

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
)

// TestProblemsAreReportedOncePerVersion: an Event that names the fields, again only when the policy
// was changed or made anew.
func TestProblemsAreReportedOncePerVersion(t *testing.T) {
	t.Parallel()
	recorder := events.NewFakeRecorder(10)
	a := &Agent{Events: recorder, Log: testr.New(t)}
	np, err := cases.RenderPolicy("dev/p",
		`{podSelector: {}, ingress: [{from: [{}], ports: [{port: 0}]}]}`, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	report := func() int {
		a.reportProblems(np, policy.Parse(np).Problems, true)
		n := len(recorder.Events)
		for range n {
			text := <-recorder.Events
			if !strings.Contains(text, "UnreadableField") ||
				!strings.Contains(text, "spec.ingress[0].from[0]") ||
				!strings.Contains(text, "; spec.ingress[0].ports[0]") {
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
		{"forgotten and back",
			func() { a.problems.forget(client.ObjectKeyFromObject(np), a.Metrics) }, 1},
	} {
		step.change()
		if got := report(); got != step.want {
			t.Errorf("%s: %d events, want %d", step.what, got, step.want)
		}
	}
	np.Generation++
	if a.reportProblems(np, policy.Parse(np).Problems, false); len(recorder.Events) > 0 {
		t.Error("two nodes report one policy")
	}
	if a.problems.total != 2 {
		t.Errorf("%d problems are counted, want 2", a.problems.total)
	}
}

// TestProblemNote: what doesn't fit is counted, and a note has a bounded length, for any value of a
// field.
func TestProblemNote(t *testing.T) {
	t.Parallel()
	long := policy.Problem{Field: "spec.x", Value: strings.Repeat("\x1b", 5000),
		Expected: "a number"}
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
		got := problemNote(c.problems, notify.LongestNote)
		if !strings.HasSuffix(got, c.ends) || len(got) > notify.LongestNote {
			t.Errorf("%d bytes: %s, want it to end with %q", len(got), got, c.ends)
		}
	}
}
