package policy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// follower reads the logs of a namespace's watching pods, also of those that come and go, while
// they run.
type follower struct {
	cluster   *framework.TheCluster
	namespace string
	selector  string
	stop      context.CancelFunc
	all       sync.WaitGroup

	mu   sync.Mutex
	pods map[string]*followed // by UID
}

// followed is what is known of one pod.
type followed struct {
	name, node string
	// the condition's, which is cut to the second; zero: it was never seen Ready
	ready     time.Time
	seenReady time.Time // when that was
	gone      time.Time // when it was seen to have ended; zero: it hasn't
	attempts  int
	succeeded int
	odd       []testprogram.Attempt // those that weren't as the pod expects
	ended     bool                  // its log has
}

// follow begins. It ends with end, or after the spec.
func follow(c *framework.TheCluster, namespace, selector string) *follower {
	f := &follower{cluster: c, namespace: namespace, selector: selector,
		pods: map[string]*followed{}}
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	ginkgo.DeferCleanup(stop)
	f.all.Go(func() {
		tick := time.NewTicker(framework.Poll)
		defer tick.Stop()
		for ctx.Err() == nil {
			f.look(ctx)
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return f
}

// look takes notice of pods that have started, of when they were Ready, and of their end.
func (f *follower) look(ctx context.Context) {
	list, err := f.cluster.Client.CoreV1().Pods(f.namespace).
		List(ctx, metav1.ListOptions{LabelSelector: f.selector})
	if err != nil {
		return // another look follows
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	there := map[string]bool{}
	for i := range list.Items {
		pod := &list.Items[i]
		if len(pod.Status.ContainerStatuses) == 0 ||
			pod.Status.ContainerStatuses[0].State.Waiting != nil {
			continue
		}
		there[string(pod.UID)] = pod.Status.ContainerStatuses[0].State.Terminated == nil
		one := f.pods[string(pod.UID)]
		if one == nil {
			one = &followed{name: pod.Name, node: pod.Spec.NodeName}
			f.pods[string(pod.UID)] = one
			f.all.Go(func() { f.read(ctx, one) })
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue &&
				one.ready.IsZero() {
				one.ready, one.seenReady = condition.LastTransitionTime.Time, time.Now()
			}
		}
	}
	for uid, one := range f.pods {
		if !there[uid] && one.gone.IsZero() {
			one.gone = time.Now()
		}
	}
}

// read reads a pod's log to its end. A node that is short of what it takes to follow a file ends
// the stream early: then it is read again, but for the lines that are known, until the pod is gone.
func (f *follower) read(ctx context.Context, one *followed) {
	tick := time.NewTicker(framework.Poll)
	defer tick.Stop()
	lines := 0
	for last := false; ctx.Err() == nil; {
		more, err := f.readOnce(ctx, one, lines)
		lines += more
		f.mu.Lock()
		over := last || apierrors.IsNotFound(err)
		last = !one.gone.IsZero() // once more, then
		one.ended = over
		f.mu.Unlock()
		if over {
			return
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// readOnce takes in what the log has beyond so many lines, for as long as it can be followed, and
// returns how many that were.
func (f *follower) readOnce(ctx context.Context, one *followed, known int) (more int, err error) {
	stream, err := f.cluster.Client.CoreV1().Pods(f.namespace).
		GetLogs(one.name, &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	lines := bufio.NewScanner(stream)
	for i := 0; lines.Scan(); i++ {
		var report testprogram.Report
		if json.Unmarshal(lines.Bytes(), &report) != nil {
			i-- // the stream's own words, not the pod's
			continue
		}
		if i >= known {
			f.note(one, report)
			more++
		}
	}
	return more, lines.Err()
}

func (f *follower) note(one *followed, report testprogram.Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case report.Attempt != nil:
		one.odd = append(one.odd, *report.Attempt)
	case report.Summary != nil:
		one.attempts += report.Summary.Attempts
		one.succeeded += report.Summary.Succeeded
	}
}

// end waits until every pod's log has ended, because the pods have, and returns all that was
// followed.
func (f *follower) end(ctx context.Context) []*followed {
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega, ctx context.Context) {
		list, err := f.cluster.Client.CoreV1().Pods(f.namespace).
			List(ctx, metav1.ListOptions{LabelSelector: f.selector})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(list.Items).To(gomega.BeEmpty(), "pods whose logs are followed")
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, one := range f.pods {
			g.Expect(one.ended).To(gomega.BeTrue(), "end of the log of %s", one.name)
		}
	}).WithContext(ctx).WithTimeout(framework.PodPatience).Should(gomega.Succeed())
	f.stop()
	f.all.Wait()
	out := make([]*followed, 0, len(f.pods))
	for _, one := range f.pods {
		out = append(out, one)
	}
	return out
}

// lived is for how long the pod was seen Ready.
func (one *followed) lived() time.Duration {
	if one.seenReady.IsZero() {
		return 0
	}
	return one.gone.Sub(one.seenReady)
}

// String is a line about the pod.
func (one *followed) String() string {
	return fmt.Sprintf("%s on %s, Ready for %.1f s: %d of %d attempts succeeded", one.name,
		one.node, one.lived().Seconds(), one.succeeded, one.attempts)
}
