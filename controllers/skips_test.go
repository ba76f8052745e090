package controllers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/overlay"
)

// TestSkipsAreReportedOnceTheyLast: a node that is out of reach for less than a minute is no
// problem; one for longer is reported once, and again after it was reached.
func TestSkipsAreReportedOnceTheyLast(t *testing.T) {
	t.Parallel()
	a, b := overlay.Skipped{Node: "a", Reason: "no podCIDR"},
		overlay.Skipped{Node: "b", Reason: "no podCIDR"}
	otherwise := overlay.Skipped{Node: "a", Reason: "no address"}
	s, start := skips{}, time.Unix(0, 0)
	for i, step := range []struct {
		second  int
		skipped []overlay.Skipped
		want    string
	}{
		{0, []overlay.Skipped{a}, "[]"},
		{59, []overlay.Skipped{a, b}, "[]"},
		{60, []overlay.Skipped{a, b}, "[a: no podCIDR]"},
		{61, []overlay.Skipped{a, b}, "[]"},
		{118, []overlay.Skipped{a}, "[]"}, // b was reached in time
		{200, []overlay.Skipped{b, a}, "[]"},
		{210, []overlay.Skipped{b, otherwise}, "[]"},
		{260, []overlay.Skipped{b, otherwise}, "[b: no podCIDR]"},
		{270, []overlay.Skipped{b, otherwise}, "[a: no address]"},
		{280, nil, "[]"},
		{290, []overlay.Skipped{a}, "[]"},
		{350, []overlay.Skipped{a}, "[a: no podCIDR]"},
	} {
		got := fmt.Sprint(s.due(start.Add(time.Duration(step.second)*time.Second), step.skipped))
		if got != step.want {
			t.Errorf("step %d, second %d: reported %s, want %s", i, step.second, got, step.want)
		}
	}
	if s.due(start, nil); len(s) > 0 {
		t.Errorf("%d nodes are remembered for good", len(s))
	}
}

// TestManySkipsAreFewEvents: however many nodes can't be reached, the API server gets a few Events
// of each agent.
func TestManySkipsAreFewEvents(t *testing.T) {
	t.Parallel()
	var same, each []overlay.Skipped
	for i := range 1500 {
		name := fmt.Sprintf("n%04d", i)
		same = append(same, overlay.Skipped{Node: name, Reason: "no podCIDR"})
		each = append(each, overlay.Skipped{Node: name, Reason: "overlaps that of " + name})
	}
	if got := skipNotes(same[:3]); len(got) != 3 ||
		got[2] != (skipNote{"n0002", "NodeSkipped", "n0002: no podCIDR"}) {
		t.Errorf("three nodes: %v", got)
	}
	if got := skipNotes(same); len(got) != 1 ||
		got[0] != (skipNote{"", "NodesSkipped", "n0000, n0001, n0002 and 1497 more: no podCIDR"}) {
		t.Errorf("one cause: %v", got)
	}
	if got := skipNotes(each); len(got) != 11 ||
		!strings.Contains(got[10].note, "1490 other reasons") {
		t.Errorf("as many causes: %d, the last %v", len(got), got[len(got)-1])
	}
}
