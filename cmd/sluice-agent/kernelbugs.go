package main

import (
	"runtime"
	"strings"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/internal/kernels"
)

// reportBugs reports those of the known bugs that the kernel has and that concern Sluice, once, and
// returns their metric.
// A kernel whose number doesn't say what is mended in it is worth a line of the log, no Event: its
// distribution may have mended all.
func reportBugs(k kernels.Kernel, known []kernels.Bug, events notify.NodeEvents,
	log logr.Logger) []prometheus.Collector {
	metric := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sluice_kernel_bug",
		Help: "1 for each bug that this node's kernel has or may have, and that concerns Sluice; " +
			"docs/kernels.md has the list.",
	}, []string{"bug"})
	bugs, unknown := k.Concerns(known, runtime.GOARCH)
	if unknown {
		log.Info("The kernel's number doesn't say which bugs of Linux are mended in it; "+
			"docs/kernels.md has those that concern Sluice", "kernel", k.String())
	}
	notes := make([]string, 0, len(bugs))
	for _, b := range bugs {
		metric.WithLabelValues(b.Name).Set(1)
		verb := k.Of(b, runtime.GOARCH).String()
		notes = append(notes, verb+" the bug "+b.Name+": "+b.Effect)
	}
	if len(bugs) > 0 {
		log.Info("The kernel has bugs that concern Sluice", "kernel", k.String(), "bugs", notes)
		events.Warn("KernelBug", "kernel "+k.String()+" "+strings.Join(notes, "; and ")+
			". A newer one of its line may have the mend: docs/kernels.md")
	}
	return []prometheus.Collector{metric}
}
