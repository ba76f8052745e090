package controllers

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/controllers/notify"
)

// TestFullTrackingIsReported: once when there is no room, and once when there is again; not each
// time that it is at its limit for a moment.
func TestFullTrackingIsReported(t *testing.T) {
	t.Parallel()
	dir, recorder := t.TempDir(), events.NewFakeRecorder(10)
	c := &TrackingCheck{SysctlDir: dir, Events: notify.NodeEvents{Node: "n1", Recorder: recorder},
		Log: testr.New(t)}
	c.look() // nothing is tracked
	if err := os.Mkdir(filepath.Join(dir, "netfilter"), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name string, n int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "netfilter", name), []byte(strconv.Itoa(n)+"\n"),
			0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		count, limit int
		reported     string
	}{
		{0, 1000, ""},
		{989, 1000, ""},
		{990, 1000, "Warning ConntrackFull connection tracking has 990 of 1000"},
		{1000, 1000, ""},
		{901, 1000, ""},
		{900, 1000, "Normal ConntrackHasRoom connection tracking has room again: 900 of 1000"},
		{950, 1000, ""},
		{950, 950, "Warning ConntrackFull"},
		{950, 100_000, "Normal ConntrackHasRoom"},
		{950, 0, ""},
	} {
		write("nf_conntrack_count", step.count)
		write("nf_conntrack_max", step.limit)
		c.look()
		reported := ""
		select {
		case reported = <-recorder.Events:
		default:
		}
		if step.reported == "" && reported != "" || !strings.HasPrefix(reported, step.reported) {
			t.Errorf("%d of %d: reported %q, want %q", step.count, step.limit, reported,
				step.reported)
		}
	}
}
