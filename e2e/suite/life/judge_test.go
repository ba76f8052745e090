package life

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// TestJudge needs no cluster: it shows that specs would notice what they are there to notice.
func TestJudge(t *testing.T) {
	t.Parallel()
	const target = "tcp://10.0.0.1:80"
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(seconds int) time.Time { return since.Add(time.Duration(seconds) * time.Second) }
	attempt := func(seconds int, kind testprogram.Kind) testprogram.Report {
		result := testprogram.Result{Target: target, OK: kind == testprogram.OK, Kind: kind,
			Error: "why"}
		return testprogram.Report{Attempt: &testprogram.Attempt{Result: result, At: at(seconds)}}
	}
	broke := testprogram.Report{Break: &testprogram.Break{Target: target, At: at(5), Seconds: 3,
		Error: "why", Reconnected: true}}
	steady := func(until, attempts int) []testprogram.Report {
		var all []testprogram.Report
		for second := 1; second <= until; second++ {
			all = append(all,
				testprogram.Report{Summary: &testprogram.Summary{At: at(second), Target: target,
					Attempts: attempts}})
		}
		return all
	}
	for name, c := range map[string]struct {
		task   task
		away   bool
		log    []testprogram.Report
		expect string // of what is wrong; empty: nothing is
	}{
		"all as it should be": {task: connects, log: steady(60, 5)},
		"a failure before the time": {
			task: connects, log: append(steady(60, 5), attempt(-1, testprogram.Timeout))},
		"a failure": {task: connects,
			log: append(steady(60, 5), attempt(5, testprogram.Timeout)), expect: "timeout (why)"},
		"a failure that may be": {task: connects, away: true,
			log: append(steady(60, 5), attempt(5, testprogram.Timeout))},
		"a break": {task: holds, log: append(steady(60, 5), broke),
			expect: "broke at 03:04:10.000 for 3.0 s (a new one: true)"},
		"a break that may be": {task: holds, away: true, log: append(steady(60, 5), broke)},
		"what is denied connects": {
			task: hammers, log: append(steady(60, 5), attempt(5, testprogram.OK)), expect: "ok"},
		"it connects to a node that was away": {task: hammers, away: true,
			log: append(steady(60, 5), attempt(5, testprogram.OK)), expect: "ok"},
		"half of it does": {task: hammers, away: true,
			log: append(steady(60, 5), attempt(5, testprogram.NoReply)), expect: "no-reply"},
		"it fails in another way": {task: hammers,
			log: append(steady(60, 5), attempt(5, testprogram.Unreachable)), expect: "unreachable"},
		"it fails in another way that may be": {task: hammers, away: true,
			log: append(steady(60, 5), attempt(5, testprogram.Unreachable))},
		"it stopped watching": {
			task: hammers, log: steady(30, 10), expect: "watched for 30s of 1m0s only"},
		"it never watched": {task: hammers, expect: "watched for 0s"},
		"it hardly tried":  {task: hammers, log: steady(60, 1), expect: "only 60 times"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			for _, report := range c.log {
				line, err := json.Marshal(report)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&log, "%s\n", line)
			}
			w := &watcher{pod: &framework.Pod{Name: "watcher"}, task: c.task,
				targets: []string{target}, awayAllowed: c.away}
			wrong := strings.Join(w.judge(log.String(), since, at(60)), "; ")
			if c.expect == "" && wrong != "" || !strings.Contains(wrong, c.expect) {
				t.Errorf("got %q, want %q", wrong, c.expect)
			}
		})
	}
}
