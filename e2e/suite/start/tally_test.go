package start

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// tally is what pods that started saw.
type tally struct {
	mu       sync.Mutex
	pods     int
	attempts int                      // at what is denied
	kinds    map[testprogram.Kind]int // what became of each denied target in the end
	controls []float64                // seconds until each control had connected
	wrong    []string

	arrived         []string // at servers that are denied
	controlsArrived int
}

// judge takes pods that have ended into the tally.
func (w *world) judge(ctx context.Context, pods []*framework.Pod, t *tally) {
	together(pods, 8, func(pod *framework.Pod) {
		phase := pod.Object(ctx).Status.Phase
		reports := testprogram.ReadLog(pod.Logs(ctx))
		t.mu.Lock()
		defer t.mu.Unlock()
		t.pods++
		if phase != corev1.PodSucceeded || len(reports) != 1 || reports[0].First == nil {
			t.wrong = append(t.wrong, fmt.Sprintf("%s is %s and said %+v", pod, phase, reports))
			return
		}
		t.take(pod.String(), reports[0].First)
	})
}

// take judges one pod: nothing that is denied connected, all of it was tried, and every control
// connected.
func (t *tally) take(pod string, first *testprogram.First) {
	if t.kinds == nil {
		t.kinds = map[testprogram.Kind]int{}
	}
	note := func(tried testprogram.Tried, what string) {
		t.wrong = append(t.wrong,
			fmt.Sprintf("%s: %s after %d attempts: %s", pod, what, tried.Attempts, tried.Result))
	}
	if len(first.Denied) == 0 || len(first.Control) == 0 {
		t.wrong = append(t.wrong, pod+" tried nothing")
	}
	for _, tried := range first.Denied {
		t.attempts += tried.Attempts
		t.kinds[tried.Kind]++
		switch {
		case tried.OK || tried.Kind == testprogram.NoReply:
			note(tried, "leaked")
		case !tried.Kind.Denied():
			note(tried, "not denied, but not for a policy's reason either")
		case tried.Attempts == 0:
			note(tried, "never tried")
		}
	}
	for _, tried := range first.Control {
		if !tried.OK {
			note(tried, "the control didn't connect")
			continue
		}
		t.controls = append(t.controls, tried.Seconds)
	}
}

// String is for the report.
func (t *tally) String() string {
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(t.kinds)) {
		kinds = append(kinds, fmt.Sprintf("%d %s", t.kinds[kind], kind))
	}
	slices.Sort(t.controls)
	median, slowest := 0.0, 0.0
	if n := len(t.controls); n > 0 {
		median, slowest = t.controls[n/2], t.controls[n-1]
	}
	return fmt.Sprintf(
		"%d pods ran, %d attempts at what is denied (targets: %s), %d of them arrived; "+
			"%d controls connected, after %.3f s in the median and %.3f s at most",
		t.pods, t.attempts, strings.Join(kinds, ", "), len(t.arrived), len(t.controls), median,
		slowest)
}
