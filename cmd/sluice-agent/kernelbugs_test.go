package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/internal/kernels"
)

// TestBugsAreReportedOnce: one Event and metric for a kernel that has or may have a bug, one line
// of the log for one whose number says nothing, and nothing for one that is mended.
func TestBugsAreReportedOnce(t *testing.T) {
	t.Parallel()
	known := []kernels.Bug{{Name: "met", Fixed: []kernels.Version{{Major: 7}}, Open: true,
		Effect: "a packet can be lost"}}
	for release, want := range map[string]struct {
		event, log, metric string
	}{
		"6.18.44-fc": {
			event:  "Warning KernelBug kernel 6.18.44-fc may have the bug met: ",
			log:    "The kernel has bugs that concern Sluice",
			metric: `sluice_kernel_bug{bug="met"} 1`},
		"5.15.0-119-generic": {log: "The kernel's number doesn't say"},
		"7.2.13":             {},
	} {
		recorder := events.NewFakeRecorder(10)
		var lines []string
		log := funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{})
		metrics := reportBugs(kernels.Identify(release, "#1 SMP"), known,
			notify.NodeEvents{Node: "n1", Recorder: recorder}, log)
		close(recorder.Events)
		var told []string
		for e := range recorder.Events {
			told = append(told, e)
		}
		expectOne(t, release+": Event", told, want.event)
		expectOne(t, release+": log", lines, want.log)
		registry := prometheus.NewRegistry()
		registry.MustRegister(metrics...)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var samples []string
		for _, f := range families {
			for _, m := range f.GetMetric() {
				samples = append(samples, fmt.Sprintf("%s{%s=%q} %v", f.GetName(),
					m.GetLabel()[0].GetName(), m.GetLabel()[0].GetValue(), m.GetGauge().GetValue()))
			}
		}
		expectOne(t, release+": metric", samples, want.metric)
	}
}

// expectOne wants one text that begins or goes on so, or none.
func expectOne(t *testing.T, what string, got []string, want string) {
	t.Helper()
	if want == "" && len(got) == 0 {
		return
	}
	if want == "" || len(got) != 1 || !strings.Contains(got[0], want) {
		t.Errorf("%s: %q, want one with %q", what, got, want)
	}
}
