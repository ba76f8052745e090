package life

import (
	"context"
	"sync"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

var _ = ginkgo.Describe("Traffic that is allowed and traffic that is denied", ginkgo.Serial,
	ginkgo.Ordered, ginkgo.ContinueOnFailure,
	framework.Disruptive, func() {
		var w *world
		var rec *record
		var began time.Time

		ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) {
			w = watchedWorld(ctx)
		}, ginkgo.NodeTimeout(6*time.Minute))

		ginkgo.BeforeEach(func(ctx ginkgo.SpecContext) {
			waitAgents(ctx, w.cluster)
			rec = startRecord(ctx, w.cluster, w.namespace, metav1.NamespaceSystem,
				metav1.NamespaceDefault)
			began = time.Now()
		}, ginkgo.NodeTimeout(6*time.Minute))

		ginkgo.It("stay so while an agent is killed", framework.Fast, func(ctx ginkgo.SpecContext) {
			newcomers := w.killUnderNewcomers(ctx)
			waitAgent(ctx, w.cluster, w.near, began)
			ginkgo.GinkgoWriter.Printf("the agent was Ready again after %s\n", time.Since(began))
			w.expectStartedProtected(ctx, newcomers)
			w.judge(ctx, began)
			rec.judge(ctx)
		}, ginkgo.SpecTimeout(6*time.Minute))

		ginkgo.It("stay so while the agents are replaced, and pods come and go", framework.Fast,
			func(ctx ginkgo.SpecContext) {
				restartAgents(ctx, w.cluster)
				started := 0
				// One more round after the last agent: that one may have missed something, too.
				for last := false; !last; started += 2 {
					last = agentsUpdated(ctx, w.cluster)
					w.expectStartedProtected(ctx, []*framework.Pod{w.newcomer(ctx, visitor, w.near),
						w.newcomer(ctx, stranger, w.far)})
				}
				ginkgo.GinkgoWriter.Printf(
					"the agents were replaced within %s, and %d pods started\n",
					time.Since(began), started)
				gomega.Expect(started).To(gomega.BeNumerically(">=", 4),
					"pods that started meanwhile")
				w.judge(ctx, began)
				rec.judge(ctx)
			}, ginkgo.SpecTimeout(10*time.Minute))

		ginkgo.It("stay so while 100 pods come and go and policies change",
			func(ctx ginkgo.SpecContext) {
				stop := w.changePolicies(ctx)
				wrong := w.churn(ctx, 100, 6)
				changes := stop()
				ginkgo.GinkgoWriter.Printf("100 pods and %d changes of policies in %s\n", changes,
					time.Since(began))
				gomega.Expect(wrong).To(gomega.BeEmpty(),
					"what was wrong with pods that came and went")
				gomega.Expect(changes).To(gomega.BeNumerically(">=", 20), "changes of policies")
				w.judge(ctx, began)
				rec.judge(ctx)
			}, ginkgo.SpecTimeout(15*time.Minute))

		ginkgo.It("stay so while the API server is away and an agent is killed", framework.OnKind,
			func(ctx ginkgo.SpecContext) {
				w.withoutAPIServer(ctx)
				waitAgents(ctx, w.cluster)
				w.expectStartedProtected(ctx, []*framework.Pod{w.newcomer(ctx, visitor, w.near),
					w.newcomer(ctx, stranger, w.near)})
				w.judge(ctx, began)
				rec.judge(ctx, "default/kubernetes") // whose endpoint is the API server
			}, ginkgo.SpecTimeout(10*time.Minute))
	})

// watchedWorld is a world with a web and an open server on each worker, and of every watcher one on
// each.
func watchedWorld(ctx context.Context) *world {
	w := newWorld(ctx, "life")
	w.service(ctx, web, false)
	w.service(ctx, open, false)
	for suffix, node := range map[string]string{"near": w.near, "far": w.far} {
		w.server(ctx, web, node, suffix)
		w.server(ctx, open, node, suffix)
	}
	for _, node := range []string{w.near, w.far} {
		w.watch(ctx, connects, friend, node, targets(w.webs...)...)
		w.watch(ctx, holds, friend, node, targets(w.webs...)...)
		w.watch(ctx, hammers, stranger, node, targets(w.webs...)...)
		w.watch(ctx, hammers, visitor, node, targets(w.opens...)...)
	}
	w.await(ctx)
	return w
}

// killUnderNewcomers kills the near node's agent, and returns pods that were created there
// meanwhile. Where the agent can be kept dead, they must not have started before it is back.
func (w *world) killUnderNewcomers(ctx context.Context) []*framework.Pod {
	killAgent(ctx, w.cluster, w.near)
	create := func() []*framework.Pod {
		var pods []*framework.Pod
		for _, role := range []string{visitor, stranger, visitor, stranger} {
			pods = append(pods, w.newcomer(ctx, role, w.near))
		}
		return pods
	}
	if w.cluster.Kind == nil {
		return create()
	}
	var hold sync.WaitGroup
	killed := 0
	hold.Go(func() {
		defer ginkgo.GinkgoRecover()
		killed = keepAgentDead(ctx, w.cluster.Kind, w.near, 12*time.Second)
	})
	pods := create()
	hold.Wait()
	for _, pod := range pods {
		for _, status := range pod.Object(ctx).Status.ContainerStatuses {
			gomega.ExpectWithOffset(1, status.State.Waiting).
				NotTo(gomega.BeNil(), "%s waits while the agent is away: %+v", pod, status.State)
		}
	}
	ginkgo.GinkgoWriter.Printf("the agent was killed once and then %d times as it came back\n",
		killed)
	return pods
}

// expectStartedProtected waits for newcomers, and fails the spec if what is denied has passed, or
// what is allowed hasn't.
func (w *world) expectStartedProtected(ctx context.Context, newcomers []*framework.Pod) {
	var wrong []string
	for _, pod := range newcomers {
		wrong = append(wrong, w.ended(ctx, pod)...)
		w.discard(ctx, pod)
	}
	gomega.ExpectWithOffset(1, wrong).
		To(gomega.BeEmpty(), "what the first instructions of new pods could and couldn't do")
}

// churn runs so many newcomers, some at a time, and returns what was wrong with them.
func (w *world) churn(ctx context.Context, count, atOnce int) []string {
	var mu sync.Mutex
	var wrong []string
	var all sync.WaitGroup
	next := make(chan int)
	for range atOnce {
		all.Go(func() {
			defer ginkgo.GinkgoRecover()
			for i := range next {
				role, node := []string{visitor, stranger}[i%2], []string{w.near, w.far}[i/2%2]
				pod := w.newcomer(ctx, role, node)
				found := w.ended(ctx, pod)
				w.discard(ctx, pod)
				mu.Lock()
				wrong = append(wrong, found...)
				mu.Unlock()
			}
		})
	}
	for i := range count {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	all.Wait()
	return wrong
}
