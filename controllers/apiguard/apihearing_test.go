package apiguard

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/controllers/notify"
)

func atSecond(second int) time.Time { return time.Unix(int64(1000+second), 0) }

// linesOf is a log, with its lines so far.
func linesOf() (log logr.Logger, lines func() []string) {
	var mu sync.Mutex
	var all []string
	log = funcr.New(func(_, args string) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, args)
	}, funcr.Options{})
	return log, func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(all) }
}

// wantLines demands lines that end so.
func wantLines(t *testing.T, what string, got []string, ends ...string) {
	t.Helper()
	if len(got) != len(ends) {
		t.Errorf("%s: got %q, want lines that end with %q", what, got, ends)
		return
	}
	for i, end := range ends {
		if !strings.HasSuffix(got[i], end) {
			t.Errorf("%s: line %d is %s, want it to end with %s", what, i, got[i], end)
		}
	}
}

// TestUnheardIsReported: once when it begins and once when it is over; after a minute by an Event
// too.
func TestUnheardIsReported(t *testing.T) {
	t.Parallel()
	recorder := events.NewFakeRecorder(10)
	log, lines := linesOf()
	a := newAPIHearing(log)
	a.events = notify.NodeEvents{Node: "n", Recorder: recorder}
	a.hear(atSecond(0), "pods")
	a.hear(atSecond(60), "pods")
	for s := range 3 {
		a.miss(atSecond(70+s), "pods", errors.New("gone"))
	}
	a.hear(atSecond(80), "pods")
	a.hear(atSecond(81), "pods")
	a.miss(atSecond(90), "pods", errors.New("gone"))
	a.hear(atSecond(200), "pods")
	a.miss(atSecond(300), "nodes", errors.New("never there"))
	a.hear(atSecond(310), "nodes")
	wantLines(t, "the log", lines(),
		`"about"="pods" "reason"="gone"`, `"about"="pods" "unheard"="20s"`,
		`"about"="pods" "reason"="gone"`, `"about"="pods" "unheard"="1m59s"`,
		`"about"="nodes" "reason"="never there"`, `"about"="nodes" "unheard"="10s"`)
	got := <-recorder.Events
	if !strings.Contains(got,
		"APIServerUnheard nothing was heard of the API server about pods for 1m59s") ||
		len(recorder.Events) > 0 {
		t.Errorf("Event %q, and %d more", got, len(recorder.Events))
	}
}

// TestQuietIsNoLoss: an API server without bookmarks says nothing while nothing changes. A watch
// that is ended for that is reported only if the next one isn't answered at once. A watch that ends
// otherwise is no long silence, if the next one is answered at once.
func TestQuietIsNoLoss(t *testing.T) {
	t.Parallel()
	type step struct {
		second int // after the last word
		what   string
	}
	for what, c := range map[string]struct {
		steps []step
		lines []string
		event string
	}{
		"answered at once":        {[]step{{180, "silent"}, {180, "heard"}}, nil, ""},
		"answered within seconds": {[]step{{180, "silent"}, {239, "heard"}}, nil, ""},
		"again and again": {[]step{{180, "silent"}, {180, "heard"}, {360, "silent"},
			{360, "heard"}, {540, "silent"}, {540, "heard"}}, nil, ""},
		"answered late": {[]step{{180, "silent"}, {240, "heard"}},
			[]string{`"unheard"="4m0s"`}, "for 4m0s"},
		"not answered": {[]step{{180, "silent"}, {360, "lost"}, {361, "heard"}},
			[]string{`"reason"="lost"`, `"unheard"="6m1s"`}, "for 6m1s"},
		"refused for a moment": {[]step{{180, "silent"}, {180, "lost"}, {181, "heard"}},
			[]string{`"reason"="lost"`, `"unheard"="3m1s"`}, "for 3m1s"},
		"the connection ends, and the next one is answered": {
			[]step{{100, "lost"}, {101, "heard"}},
			[]string{`"reason"="lost"`, `"unheard"="1m41s"`}, ""},
		"the connection ends, and the next one isn't answered": {
			[]step{{100, "lost"}, {101, "lost"}, {102, "heard"}},
			[]string{`"reason"="lost"`, `"unheard"="1m42s"`}, "for 1m42s"},
	} {
		recorder := events.NewFakeRecorder(10)
		log, lines := linesOf()
		a := newAPIHearing(log)
		a.events = notify.NodeEvents{Node: "n", Recorder: recorder}
		a.hear(atSecond(0), "pods")
		for _, step := range c.steps {
			switch now := atSecond(step.second); step.what {
			case "silent":
				a.fallSilent(now, "pods")
			case "lost":
				a.miss(now, "pods", errors.New("lost"))
			case "heard":
				a.hear(now, "pods")
			}
		}
		wantLines(t, what, lines(), c.lines...)
		event := ""
		if len(recorder.Events) > 0 {
			event = <-recorder.Events
		}
		if (event == "") != (c.event == "") || !strings.Contains(event, c.event) ||
			len(recorder.Events) > 0 {
			t.Errorf("%s: Event %q, and %d more, want %q", what, event, len(recorder.Events),
				c.event)
		}
	}
}

// TestForgottenResources: of what isn't watched any more nothing is missed, and no metric says when
// it was heard of.
func TestForgottenResources(t *testing.T) {
	t.Parallel()
	recorder := events.NewFakeRecorder(10)
	log, lines := linesOf()
	a := newAPIHearing(log)
	a.events = notify.NodeEvents{Node: "n", Recorder: recorder}
	a.hear(atSecond(0), "pods")
	a.hear(atSecond(0), "others")
	a.miss(atSecond(10), "others", errors.New("404"))
	a.forget("others")
	collected := make(chan prometheus.Metric, 10)
	a.heard.Collect(collected)
	if len(collected) != 1 {
		t.Errorf("%d resources have a metric, expected that of pods", len(collected))
	}
	a.hear(atSecond(1000), "others")
	wantLines(t, "the log", lines(), `"about"="others" "reason"="404"`)
	if len(recorder.Events) > 0 {
		t.Errorf("Event %q", <-recorder.Events)
	}
}
