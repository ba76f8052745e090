package fair

import (
	"fmt"
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	t.Parallel()
	start := time.Unix(0, 0)
	b := Bucket{Most: 3, Every: 10 * time.Second}
	for i, step := range []struct {
		at   time.Duration
		want bool
	}{
		{0, true}, {0, true}, {0, true}, {0, false}, {9 * time.Second, false},
		{10 * time.Second, true}, {11 * time.Second, false},
		// a clock that goes back
		{time.Hour, true}, {time.Hour, true}, {time.Hour, true}, {time.Hour, false},
		{time.Minute, false},
	} {
		if got := b.Take(start.Add(step.at)); got != step.want {
			t.Errorf("step %d, after %v: %v", i, step.at, got)
		}
	}
	if b.Idle(start.Add(time.Hour)) || !b.Idle(start.Add(time.Hour+30*time.Second)) {
		t.Error("idle too early or too late")
	}
}

// TestLineBudgets: one source's lines don't use up another's, and those that were left out are
// counted in its next one.
func TestLineBudgets(t *testing.T) {
	t.Parallel()
	now, l := time.Unix(0, 0), lineBudgets{}
	got := 0
	for range 1000 {
		if _, ok := l.take(now, "flood"); ok {
			got++
		}
	}
	if got != linesAtOnce {
		t.Errorf("%d lines at once, want %d", got, linesAtOnce)
	}
	if _, ok := l.take(now, "other"); !ok {
		t.Error("another source has no line")
	}
	if left, ok := l.take(now.Add(lineInterval), "flood"); !ok || left != 1000-linesAtOnce {
		t.Errorf("the next line: %v, %d left out before", ok, left)
	}
	for i := range 10 * ManySources {
		l.take(now.Add(time.Duration(i)*time.Minute), fmt.Sprint(i))
	}
	if len(l) > ManySources {
		t.Errorf("%d sources are remembered", len(l))
	}
}
