package start

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// fastPods is how many pods start on each worker in the small variant, and defaultPods in the whole
// one.
const (
	fastPods    = 15
	defaultPods = 100
)

// podsVariable says how many pods start on each worker in the whole variant.
const podsVariable = "SLUICE_E2E_START_PODS"

var _ = ginkgo.Describe("pods that connect with their first instruction", func() {
	ginkgo.It("get nowhere that policy denies: a few", framework.Fast,
		func(ctx ginkgo.SpecContext) {
			run(ctx, fastPods)
		}, ginkgo.SpecTimeout(5*time.Minute))

	ginkgo.It("get nowhere that policy denies: as many as a node takes",
		func(ctx ginkgo.SpecContext) {
			pods := defaultPods
			if text := os.Getenv(podsVariable); text != "" {
				var err error
				pods, err = strconv.Atoi(text)
				gomega.Expect(err).NotTo(gomega.HaveOccurred(), podsVariable)
			}
			run(ctx, pods)
		}, ginkgo.SpecTimeout(15*time.Minute))
})

// run starts so many pods on each worker, in batches that fit, and judges them.
func run(ctx context.Context, each int) {
	began := time.Now()
	w := newWorld(ctx)
	w.expectGuarded(ctx)
	ready := time.Now()

	var judged tally
	for started := 0; started < each; {
		batch := min(each-started, w.room(ctx))
		gomega.Expect(batch).To(gomega.BeNumerically(">", 0), "room for pods on a worker")
		ginkgo.By(fmt.Sprintf("starting %d pods on each of %d workers", batch, len(w.workers)))
		pods := w.startBatch(ctx, started, batch)
		w.awaitEnd(ctx, pods)
		w.judge(ctx, pods, &judged)
		w.remove(ctx, pods)
		started += batch
	}
	took := time.Since(ready)

	judged.arrived, judged.controlsArrived = w.arrivals(ctx)
	w.expectGuarded(ctx) // so the servers were there, and counting, all the time
	ginkgo.AddReportEntry("starts",
		fmt.Sprintf("%s\nset up in %.1f s, %d pods in %.1f s", &judged, ready.Sub(began).Seconds(),
			judged.pods, took.Seconds()))
	gomega.Expect(judged.wrong).To(gomega.BeEmpty(), "pods that weren't as they must be")
	gomega.Expect(judged.pods).To(gomega.Equal(each*len(w.workers)), "pods that ran")
	gomega.Expect(judged.arrived).
		To(gomega.BeEmpty(), "what the guarded and the forbidden servers got")
	gomega.Expect(judged.controlsArrived).
		To(gomega.BeNumerically(">=", judged.pods), "what the controls' servers got")
}

// together does something for all, a number of them at the same time.
func together[T any](all []T, atOnce int, do func(T)) {
	var group sync.WaitGroup
	free := make(chan struct{}, atOnce)
	done := make(chan struct{}, len(all))
	for _, one := range all {
		free <- struct{}{}
		group.Go(func() {
			defer func() { <-free }()
			defer ginkgo.GinkgoRecover()
			do(one)
			done <- struct{}{}
		})
	}
	group.Wait()
	gomega.ExpectWithOffset(1, done).
		To(gomega.HaveLen(len(all)), "how many of all that were begun succeeded")
}
