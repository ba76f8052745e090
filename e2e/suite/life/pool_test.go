package life

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

const (
	// mostAddresses is how large an IPv4 pool may be for a spec to fill it.
	mostAddresses = 256
	// waiting is how many pods are to find no address.
	waiting = 12
	// atATime is how many pods are created before they are waited for.
	atATime = 20
)

// pool is what is known of a node's addresses.
type pool struct {
	prefix     netip.Prefix
	size, used int // addresses for pods
	pods, most int // pods, also without an address of the pool, and how many kubelet takes
}

var _ = ginkgo.Describe("A node whose addresses are all in use or resting", ginkgo.Serial,
	framework.Disruptive, func() {
		ginkgo.It("has new pods wait, and nothing else suffers", func(ctx ginkgo.SpecContext) {
			w := newWorld(ctx, "pool")
			p := w.pool(ctx, w.near)
			server, other := w.server(ctx, web, w.near, "near"), w.server(ctx, web, w.far, "far")
			w.server(ctx, open, w.far, "far")
			w.service(ctx, web, false)
			for _, node := range []string{w.near, w.far} {
				w.watch(ctx, connects, friend, node, targets(server, other)...)
				w.watch(ctx, hammers, stranger, node, targets(server, other)...)
			}
			w.await(ctx)
			rec := startRecord(ctx, w.cluster, w.namespace, metav1.NamespaceSystem)
			began := time.Now()

			// As many as kubelet takes, which may be fewer than there are addresses: then some that
			// are freed are what is missing.
			p = w.pool(ctx, w.near)
			fill := min(p.most-p.pods-1, p.size-p.used)
			ginkgo.DeferCleanup(w.removeIdlers, ginkgo.NodeTimeout(5*time.Minute))
			running := w.idlers(ctx, fill)
			p = w.pool(ctx, w.near)
			ginkgo.GinkgoWriter.Printf("after %s %d pods run on %s, %d of %d addresses are used\n",
				time.Since(began), p.pods, w.near, p.used, p.size)
			again := p.size - p.used + waiting
			gomega.Expect(len(running)).To(gomega.BeNumerically(">", again),
				"pods that can be replaced")
			replaced := time.Now()
			for _, pod := range running[:again] {
				w.discard(ctx, pod)
			}
			var waiters []*framework.Pod
			for range again {
				waiters = append(waiters, w.idler(ctx))
			}
			w.expectExhaustion(ctx, replaced)
			for _, pod := range []*framework.Pod{w.watchers[0].pod, w.watchers[2].pod} {
				framework.ExpectReaches(ctx, pod, targets(server, other)...)
			}
			w.judge(ctx, began)
			rec.judge(ctx)

			// What was freed has rested, and every pod starts.
			w.awaitRunning(ctx, waiters)
			ginkgo.GinkgoWriter.Printf("all %d pods ran %s after as many were deleted\n", again,
				time.Since(replaced))
			w.expectStartedProtected(ctx, []*framework.Pod{w.newcomer(ctx, visitor, w.near)})
			w.judge(ctx, began)
			rec.judge(ctx)
		}, ginkgo.SpecTimeout(20*time.Minute))
	})

// pool looks at a node's, or skips the spec if it is too large to be filled.
func (w *world) pool(ctx context.Context, name string) pool {
	var p pool
	for _, node := range w.cluster.Nodes(ctx) {
		for _, cidr := range node.Spec.PodCIDRs {
			prefix, err := netip.ParsePrefix(cidr)
			gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
			if node.Name == name && prefix.Addr().Is4() {
				p.prefix, p.size = prefix, 1<<(32-prefix.Bits())-2
			}
		}
		if node.Name == name {
			p.most = int(node.Status.Allocatable.Pods().Value())
		}
	}
	if p.size == 0 || p.size > mostAddresses {
		ginkgo.Skip(
			fmt.Sprintf("node %s has %d IPv4 addresses for pods: none, or too many to use them up",
				name, p.size))
	}
	pods, err := w.cluster.Client.CoreV1().Pods(metav1.NamespaceAll).
		List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + name})
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
	for _, pod := range pods.Items {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		p.pods++
		for _, ip := range pod.Status.PodIPs {
			if addr, err := netip.ParseAddr(ip.IP); err == nil && p.prefix.Contains(addr) &&
				!pod.Spec.HostNetwork {
				p.used++
			}
		}
	}
	return p
}

// idler creates a pod on the near node that does nothing, and ends at once when it is deleted.
func (w *world) idler(ctx context.Context) *framework.Pod {
	return w.cluster.CreatePod(ctx, w.namespace,
		framework.PodOptions{Node: w.near, Labels: map[string]string{"idler": "true"},
			Mutate: func(pod *corev1.Pod) {
				second := int64(1)
				pod.Spec.TerminationGracePeriodSeconds = &second
			}})
}

// idlers creates so many and waits until they run.
func (w *world) idlers(ctx context.Context, count int) []*framework.Pod {
	var all []*framework.Pod
	for len(all) < count {
		var some []*framework.Pod
		for range min(atATime, count-len(all)) {
			some = append(some, w.idler(ctx))
		}
		w.cluster.WaitReady(ctx, some...)
		all = append(all, some...)
	}
	return all
}

// removeIdlers waits until they are gone: specs that follow need room on the node.
func (w *world) removeIdlers(ctx ginkgo.SpecContext) {
	pods := w.cluster.Client.CoreV1().Pods(w.namespace)
	idle := metav1.ListOptions{LabelSelector: "idler"}
	gomega.Eventually(ctx, func(g gomega.Gomega) {
		g.Expect(pods.DeleteCollection(ctx, metav1.DeleteOptions{}, idle)).To(gomega.Succeed())
		left, err := pods.List(ctx, idle)
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(left.Items).To(gomega.BeEmpty(), "idle pods that are left")
	}).WithContext(ctx).WithTimeout(4 * time.Minute).WithPolling(2 * time.Second).
		Should(gomega.Succeed())
}

func (w *world) awaitRunning(ctx context.Context, pods []*framework.Pod) {
	for len(pods) > 0 {
		some := pods[:min(len(pods), atATime)]
		w.cluster.WaitReady(ctx, some...)
		pods = pods[len(some):]
	}
}

// expectExhaustion waits until both the node and a pod that waits say that there is no address.
func (w *world) expectExhaustion(ctx context.Context, since time.Time) {
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		events, err := w.cluster.Client.CoreV1().Events(metav1.NamespaceAll).
			List(ctx, metav1.ListOptions{})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		of := func(kind, reason string) []string {
			var messages []string
			for _, event := range events.Items {
				isNew := event.LastTimestamp.After(since) || event.EventTime.After(since) ||
					event.CreationTimestamp.After(since)
				if isNew && event.InvolvedObject.Kind == kind && event.Reason == reason &&
					strings.Contains(event.Message, "no free address") {
					messages = append(messages, event.InvolvedObject.Name+": "+event.Message)
				}
			}
			return messages
		}
		node, pods := of("Node", "AddressPoolExhausted"), of("Pod", "FailedCreatePodSandBox")
		g.Expect(node).NotTo(gomega.BeEmpty(), "Events of the node")
		g.Expect(node[0]).To(gomega.HavePrefix(w.near + ":"))
		g.Expect(pods).NotTo(gomega.BeEmpty(), "Events of pods that wait")
		ginkgo.GinkgoWriter.Printf("%s\n%s\nand %d more\n", node[0], pods[0], len(pods)-1)
	}).WithContext(ctx).WithTimeout(2*time.Minute).
		Should(gomega.Succeed(), "it is said why pods wait")
}
