package life

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// startsFirst is the init container of servers that are on the node that is restarted: what its
// first instructions could reach.
const startsFirst = "first"

var _ = ginkgo.Describe("A node that is restarted", ginkgo.Serial, ginkgo.Ordered,
	ginkgo.ContinueOnFailure,
	framework.Disruptive, framework.OnKind, func() {
		var w *world
		var kind *framework.Kind
		var elsewhere, there []*watcher
		var webService *corev1.Service

		ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) {
			kind = framework.Cluster().RequireKind()
			w = newWorld(ctx, "restart")
			// Also through the Service of the node's pods, which doesn't wait until they are Ready:
			// the first packet counts.
			webService = w.service(ctx, web, true)
			w.server(ctx, open, w.far, "far")
			friendly := w.farServer(ctx)
			w.backend(ctx)
			for _, node := range []string{w.far, kind.ControlPlane()} {
				elsewhere = append(elsewhere,
					w.watch(ctx, connects, friend, node, targets(friendly)...),
					w.watch(ctx, holds, friend, node, targets(friendly)...))
				there = append(there,
					w.watch(ctx, hammers, stranger, node, serviceTargets(webService)...),
					w.watch(ctx, connects, friend, node, serviceTargets(webService)...))
			}
			for _, watching := range there {
				watching.awayAllowed = true
			}
			w.await(ctx)
		}, ginkgo.NodeTimeout(6*time.Minute))

		again := func(ctx ginkgo.SpecContext, drained bool) {
			rec := startRecord(ctx, w.cluster, w.namespace, metav1.NamespaceSystem)
			began := time.Now()
			if drained {
				w.drain(ctx)
			}
			before := w.backendPod(ctx, drained)
			kind.Restart(ctx, w.near)
			restarted := time.Now()
			waitAgent(ctx, w.cluster, w.near, restarted)
			w.awaitNodeReady(ctx, restarted)
			ginkgo.GinkgoWriter.Printf("%s was Ready with an agent %s after its restart\n", w.near,
				time.Since(restarted))
			if drained {
				w.uncordon(ctx)
			}
			w.awaitBackend(ctx, restarted)
			ginkgo.GinkgoWriter.Printf("its pod was Ready %s after its restart\n",
				time.Since(restarted))
			after := w.backendPod(ctx, false)
			gomega.Expect(after.UID).To(gomega.Equal(before.UID),
				"the pod that waited for the node, or was there")
			gomega.Expect(wrongAtFirst(after.Name, w.initLog(ctx, after))).
				To(gomega.BeEmpty(), "the first instructions of the pod on the restarted node")
			for _, watching := range there {
				if watching.task == connects {
					framework.ExpectReaches(ctx, watching.pod, serviceTargets(webService)...)
				} else {
					framework.ExpectRefused(ctx, watching.pod, serviceTargets(webService)...)
				}
			}
			w.expectStartedProtected(ctx, []*framework.Pod{w.newcomer(ctx, visitor, w.near),
				w.newcomer(ctx, stranger, w.near)})
			w.judge(ctx, began)
			// What was on the node left, and what leads to it.
			rec.judge(ctx, w.near, w.namespace+"/"+web, "kube-system/kube-dns")
			gomega.Expect(slices.Concat(elsewhere, there)).To(gomega.HaveLen(8))
		}

		ginkgo.It("after it was drained has its pods again, with their policies",
			func(ctx ginkgo.SpecContext) { again(ctx, true) },
			ginkgo.SpecTimeout(10*time.Minute))
		ginkgo.It("without a warning has its pods again, with their policies",
			func(ctx ginkgo.SpecContext) { again(ctx, false) },
			ginkgo.SpecTimeout(10*time.Minute))
	})

// farServer is a web on the far node that the Service doesn't lead to.
func (w *world) farServer(ctx context.Context) *framework.Pod {
	server := w.cluster.Server(ctx, w.namespace, framework.PodOptions{
		Name: "friendly", Node: w.far, Labels: map[string]string{appLabel: web, "aside": "true"},
		Args: []string{"--report-peers"},
	}, servedPorts...)
	w.webs = append(w.webs, server)
	return server
}

// serviceTargets are a Service's ports by each of its addresses.
func serviceTargets(service *corev1.Service) []string {
	var all []string
	for _, ip := range service.Spec.ClusterIPs {
		addr := parseAddr(ip)
		all = append(all, framework.Target("tcp", addr, 80), framework.Target("udp", addr, 80))
	}
	return all
}

// backend is a Deployment of one web on the near node. Its init container is a visitor's first
// instructions.
func (w *world) backend(ctx context.Context) {
	one := int32(1)
	labels := map[string]string{appLabel: web, roleLabel: visitor, "backend": "true"}
	var template corev1.PodTemplateSpec
	// What the framework makes of a pod, with two containers of it.
	w.cluster.CreatePod(ctx, w.namespace, framework.PodOptions{
		Name: "unused", Node: w.near, Labels: labels,
		Args: []string{"serve", "--name", "backend", "--serve", "tcp/80", "--serve", "udp/80",
			"--report-peers"},
		Mutate: func(pod *corev1.Pod) {
			template = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: *pod.Spec.DeepCopy()}
		},
	}).Delete(ctx)
	first := *template.Spec.Containers[0].DeepCopy()
	first.Name, first.Args = startsFirst, w.firstArgs(visitor)
	template.Spec.InitContainers = []corev1.Container{first}
	// A cordon has to keep it away.
	template.Spec.Tolerations = nil
	w.cluster.Apply(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "backend"},
		Spec: appsv1.DeploymentSpec{Replicas: &one,
			Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template},
	})
	w.awaitBackend(ctx, time.Time{})
}

// backendPod is the Deployment's pod, or nil. If it was evicted, the one that waits for its node.
func (w *world) backendPod(ctx context.Context, evicted bool) *corev1.Pod {
	var found *corev1.Pod
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		pods, err := w.cluster.Client.CoreV1().Pods(w.namespace).
			List(ctx, metav1.ListOptions{LabelSelector: "backend"})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		pods.Items = slices.DeleteFunc(pods.Items, func(pod corev1.Pod) bool {
			return pod.DeletionTimestamp != nil
		})
		g.Expect(pods.Items).To(gomega.HaveLen(1))
		found = &pods.Items[0]
		node := w.near
		if evicted {
			node = ""
		}
		g.Expect(found.Spec.NodeName).
			To(gomega.Equal(node), "where it runs, unless it waits for its node")
	}).WithContext(ctx).Should(gomega.Succeed(), "the Deployment's pod")
	return found
}

// awaitBackend waits until the Deployment's pod is Ready, with containers that were started since
// then.
func (w *world) awaitBackend(ctx context.Context, since time.Time) {
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		pods, err := w.cluster.Client.CoreV1().Pods(w.namespace).
			List(ctx, metav1.ListOptions{LabelSelector: "backend"})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(pods.Items).To(gomega.HaveLen(1))
		g.Expect(pods.Items[0].Status.ContainerStatuses).NotTo(gomega.BeEmpty())
		status, first := pods.Items[0].Status.ContainerStatuses[0],
			pods.Items[0].Status.InitContainerStatuses[0].State.Terminated
		g.Expect(first).NotTo(gomega.BeNil(), "its init container has run")
		g.Expect(first.StartedAt.Time).To(gomega.BeTemporally(">=", since.Truncate(time.Second)))
		g.Expect(status.State.Running).NotTo(gomega.BeNil(), "it runs: %+v", status.State)
		g.Expect(status.State.Running.StartedAt.Time).
			To(gomega.BeTemporally(">=", since.Truncate(time.Second)))
		g.Expect(status.Ready).To(gomega.BeTrue())
	}).WithContext(ctx).WithTimeout(4*time.Minute).
		Should(gomega.Succeed(), "the Deployment's pod is Ready")
}

func (w *world) initLog(ctx context.Context, pod *corev1.Pod) string {
	var log []byte
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) (err error) {
		log, err = w.cluster.Client.CoreV1().Pods(pod.Namespace).
			GetLogs(pod.Name, &corev1.PodLogOptions{Container: startsFirst}).DoRaw(ctx)
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "reading the log of %s's init container", pod.Name)
	return string(log)
}

// drain keeps new pods from the near node and evicts all that a controller makes again elsewhere or
// later.
func (w *world) drain(ctx context.Context) {
	cordon(ctx, w.cluster, w.near, true)
	ginkgo.DeferCleanup(func(ctx ginkgo.SpecContext) {
		cordon(ctx, w.cluster, w.near, false)
	}, ginkgo.NodeTimeout(time.Minute))
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		pods, err := w.cluster.Client.CoreV1().Pods(metav1.NamespaceAll).
			List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + w.near})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		var left []string
		for _, pod := range pods.Items {
			owner := metav1.GetControllerOf(&pod)
			if owner == nil || owner.Kind == "DaemonSet" || owner.Kind == "Node" {
				continue
			}
			left = append(left, pod.Namespace+"/"+pod.Name)
			err := w.cluster.Client.CoreV1().Pods(pod.Namespace).
				EvictV1(ctx,
					&policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name,
						Namespace: pod.Namespace}})
			g.Expect(apierrors.IsNotFound(err) || apierrors.IsTooManyRequests(err) || err == nil).
				To(gomega.BeTrue(), "%v", err)
		}
		g.Expect(left).To(gomega.BeEmpty(), "pods to evict")
	}).WithContext(ctx).WithTimeout(2*time.Minute).Should(gomega.Succeed(), "draining %s", w.near)
}

func (w *world) uncordon(ctx context.Context) { cordon(ctx, w.cluster, w.near, false) }

// cordon keeps new pods from a node, or lets them in again.
func cordon(ctx context.Context, cluster *framework.TheCluster, node string, on bool) {
	patch := fmt.Appendf(nil, `{"spec":{"unschedulable":%v}}`, on)
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) error {
		_, err := cluster.Client.CoreV1().Nodes().
			Patch(ctx, node, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "setting unschedulable of %s to %v", node, on)
}

// awaitNodeReady waits until the near node's kubelet has said that it is Ready, since then.
func (w *world) awaitNodeReady(ctx context.Context, since time.Time) {
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		node, err := w.cluster.Client.CoreV1().Nodes().Get(ctx, w.near, metav1.GetOptions{})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				g.Expect(condition.LastHeartbeatTime.Time).
					To(gomega.BeTemporally(">=", since.Truncate(time.Second)),
						"what its kubelet said is new")
			}
		}
		g.Expect(framework.NodeReady(node)).To(gomega.BeTrue(), conditionsOf(node))
	}).WithContext(ctx).WithTimeout(3*time.Minute).
		Should(gomega.Succeed(), "%s is Ready again", w.near)
}
