package life

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// What a watcher does.
type task string

const (
	connects task = "connects" // makes new connections, which must work
	holds    task = "holds"    // keeps connections, which must work
	hammers  task = "hammers"  // makes new connections, which must be denied
)

// watcher is a pod that tries its targets all the while and writes down what isn't as it should be.
type watcher struct {
	pod     *framework.Pod
	task    task
	role    string
	targets []string

	// The node of the targets may be away. What is denied may fail in any way then, but not
	// succeed, and what is allowed may fail.
	awayAllowed bool
}

// watch runs a watcher on a node and returns once it watches.
func (w *world) watch(ctx context.Context, does task, role, node string,
	targets ...string) *watcher {
	args := []string{"watch", "--settle", "40s"}
	switch does {
	case connects:
		args = append(args, "--every", "200ms", "--timeout", "2s")
	case holds:
		args = append(args, "--every", "200ms", "--timeout", "2s", "--lasting")
	case hammers:
		args = append(args, "--every", "100ms", "--timeout", "500ms", "--expect", "refused")
	}
	for _, target := range targets {
		args = append(args, "--target", target)
	}
	pod := w.cluster.CreatePod(ctx, w.namespace, framework.PodOptions{
		Name: fmt.Sprintf("%s-%s-%d", role, does, len(w.watchers)), Node: node,
		Labels: map[string]string{roleLabel: role}, Args: args,
	})
	watching := &watcher{pod: pod, task: does, role: role, targets: targets}
	w.watchers = append(w.watchers, watching)
	return watching
}

// await waits until all watchers watch.
func (w *world) await(ctx context.Context) {
	pods := make([]*framework.Pod, len(w.watchers))
	for i, watching := range w.watchers {
		pods[i] = watching.pod
	}
	w.cluster.WaitReady(ctx, pods...)
	for _, watching := range w.watchers {
		gomega.EventuallyWithOffset(1, ctx, func() bool {
			return slices.ContainsFunc(testprogram.ReadLog(watching.pod.Logs(ctx)),
				func(r testprogram.Report) bool { return r.Watching })
		}).WithContext(ctx).Should(gomega.BeTrue(), "%s watches", watching.pod)
	}
}

// judge fails the spec if, since a time, a watcher of the world has seen what it mustn't, or hasn't
// watched; or if a server has seen one whom it mustn't.
func (w *world) judge(ctx context.Context, since time.Time) {
	var wrong []string
	for _, watching := range w.watchers {
		wrong = append(wrong, watching.judge(watching.pod.Logs(ctx), since, time.Now())...)
	}
	wrong = append(wrong, w.guestsThatMustNot(ctx, w.webs, stranger)...)
	wrong = append(wrong, w.guestsThatMustNot(ctx, w.opens, visitor)...)
	gomega.ExpectWithOffset(1, wrong).To(gomega.BeEmpty(), "what mustn't have happened since %s",
		since.UTC().Format(time.TimeOnly))
}

// judge says what a watcher has seen since a time that mustn't be, by its log as it is now.
func (w *watcher) judge(log string, since, now time.Time) []string {
	var wrong []string
	attempts, succeeded := map[string]int{}, map[string]int{}
	last := since
	for _, report := range testprogram.ReadLog(log) {
		switch {
		case report.Attempt != nil && report.Attempt.At.After(since) &&
			!w.excused(report.Attempt.Result):
			wrong = append(wrong, fmt.Sprintf("%s (%s) at %s, for %.1f s: %s",
				w.pod.Name, w.task, report.Attempt.At.Format("15:04:05.000"),
				report.Attempt.Seconds, report.Attempt.Result))
		case report.Break != nil && report.Break.At.After(since) && !w.awayAllowed:
			wrong = append(wrong,
				fmt.Sprintf("%s's connection to %s broke at %s for %.1f s (a new one: %v): %s",
					w.pod.Name, report.Break.Target,
					report.Break.At.Format("15:04:05.000"), report.Break.Seconds,
					report.Break.Reconnected, report.Break.Error))
		case report.Summary != nil && report.Summary.At.After(since):
			attempts[report.Summary.Target] += report.Summary.Attempts
			succeeded[report.Summary.Target] += report.Summary.Succeeded
			last = report.Summary.At
		}
	}
	// A watcher that wasn't there saw nothing.
	watched := last.Sub(since)
	if passed := now.Sub(since); watched < passed-15*time.Second || watched <= 0 {
		wrong = append(wrong,
			fmt.Sprintf("%s watched for %s of %s only", w.pod.Name, watched, passed))
	}
	all, worked := 0, 0
	for _, target := range w.targets {
		if atLeast := int(watched.Seconds() * 1.5); attempts[target] < atLeast {
			wrong = append(wrong, fmt.Sprintf("%s tried %s only %d times in %s", w.pod.Name, target,
				attempts[target], watched))
		}
		all, worked = all+attempts[target], worked+succeeded[target]
	}
	ginkgo.GinkgoWriter.Printf("%s %s: %d attempts in %.0f s, %d worked\n", w.pod.Name, w.task, all,
		watched.Seconds(), worked)
	return wrong
}

// excused says whether an attempt that wasn't as expected may be because the target's node is away.
func (w *watcher) excused(result testprogram.Result) bool {
	return w.awayAllowed && (w.task != hammers || !result.OK && result.Kind != testprogram.NoReply)
}

// guestsThatMustNot says which watchers of a role have got through to servers, by what the servers
// wrote down.
func (w *world) guestsThatMustNot(ctx context.Context, servers []*framework.Pod,
	role string) []string {
	var wrong []string
	for _, server := range servers {
		known, seen := 0, map[string]int{}
		for _, report := range testprogram.ReadLog(server.Logs(ctx)) {
			if report.Peer == nil {
				continue
			}
			for _, watching := range w.watchers {
				if slices.Contains(watching.pod.Addresses(), report.Peer.From.Addr()) {
					known++
					if watching.role == role {
						seen[watching.pod.Name+" by "+report.Peer.Protocol]++
					}
				}
			}
		}
		for who, times := range seen {
			wrong = append(wrong,
				fmt.Sprintf("%s got through to %s, %d times", who, server.Name, times))
		}
		ginkgo.GinkgoWriter.Printf("%s saw watchers %d times\n", server.Name, known)
	}
	slices.Sort(wrong)
	return wrong
}
