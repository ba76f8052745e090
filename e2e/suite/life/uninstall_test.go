package life

import (
	"context"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// uninstall is the label of the specs that take Sluice off the cluster.
const uninstall = "uninstall"

// traces are commands that print what Sluice has on a node, by what they look at. Empty folders
// below /run aren't a trace.
var traces = map[string]string{
	"the table": `nft list tables | grep -w sluice || true`,
	"links":     `ip -o link | grep -oE 'slu[a-z][0-9a-z.]*' || true`,
	"routes": `{ ip route show table all; ip -6 route show table all; } |
		grep -wE 'slup[0-9a-f]*|sluice[.0-9]*|proto 8[34]' || true`,
	"neighbours":   `{ ip neighbour; ip -6 neighbour; } | grep -E 'slu[a-z]' || true`,
	"the conflist": `find /etc/cni/net.d -name '*sluice*'`,
	"the plugin":   `find /opt/cni/bin -name '*sluice*'`,
	"its state":    `find /run/sluice -type f -o -type s 2>/dev/null || true`,
	"subnet.env":   `find /run/flannel -type f 2>/dev/null || true`,
	"network tools": `find /run/NetworkManager/conf.d /run/systemd/network \
		/etc/NetworkManager /etc/systemd/network -name '*sluice*' 2>/dev/null || true`,
	"rules of xtables": `{ iptables-save; ip6tables-save; } 2>/dev/null | grep -i sluice || true`,
}

// always are the traces that every node with Sluice has.
var always = []string{"the table", "links", "routes", "the conflist", "the plugin", "its state",
	"subnet.env", "network tools"}

var _ = ginkgo.Describe("Sluice", ginkgo.Serial, ginkgo.Ordered, framework.Disruptive,
	framework.OnKind, ginkgo.Label(uninstall), func() {
		ginkgo.It("can be taken off a cluster, and be installed again",
			func(ctx ginkgo.SpecContext) {
				if !strings.Contains(ginkgo.GinkgoLabelFilter(), uninstall) {
					ginkgo.Skip("takes Sluice off the cluster: only where the label filter says " +
						uninstall)
				}
				cluster := framework.Cluster()
				kind := cluster.RequireKind()
				nodes := cluster.Nodes(ctx)
				for _, node := range nodes {
					found := tracesOn(ctx, kind, node.Name)
					for _, trace := range always {
						gomega.Expect(found).To(gomega.HaveKey(trace),
							"control: what Sluice has on %s",
							node.Name)
					}
				}
				installed := asInstalled(ctx, cluster)
				ginkgo.DeferCleanup(func(ctx ginkgo.SpecContext) {
					installAgain(ctx, cluster, installed)
				}, ginkgo.NodeTimeout(6*time.Minute))

				for _, node := range nodes {
					cordon(ctx, cluster, node.Name, true)
				}
				began := time.Now()
				emptyNodes(ctx, cluster)
				deleteManifest(ctx, cluster, installed)
				cleaner := readManifest("uninstall.yaml")
				ginkgo.DeferCleanup(func(ctx ginkgo.SpecContext) {
					if ginkgo.CurrentSpecReport().Failed() {
						deleteManifest(ctx, cluster, cleaner)
					}
				}, ginkgo.NodeTimeout(4*time.Minute))
				applyManifest(ctx, cluster, cleaner)
				awaitCleaners(ctx, cluster, len(nodes))
				ginkgo.GinkgoWriter.Printf("the nodes were clean %s after the first was drained\n",
					time.Since(began))
				for _, node := range nodes {
					gomega.Expect(tracesOn(ctx, kind, node.Name)).
						To(gomega.BeEmpty(), "what is left of Sluice on %s", node.Name)
				}
				deleteManifest(ctx, cluster, cleaner)
				for _, node := range nodes {
					gomega.Expect(tracesOn(ctx, kind, node.Name)).To(gomega.BeEmpty(),
						"what is left of Sluice on %s, after all was deleted", node.Name)
				}

				began = time.Now()
				installAgain(ctx, cluster, installed)
				ginkgo.GinkgoWriter.Printf("installed again within %s\n", time.Since(began))
				w := watchedWorld(ctx)
				since := time.Now()
				w.expectStartedProtected(ctx,
					[]*framework.Pod{w.newcomer(ctx, visitor, w.near),
						w.newcomer(ctx, stranger, w.far)})
				w.judge(ctx, since)
			}, ginkgo.SpecTimeout(20*time.Minute))
	})

// tracesOn are what Sluice has on a node, without what it has nothing of.
func tracesOn(ctx context.Context, kind *framework.Kind, node string) map[string]string {
	found := map[string]string{}
	for trace, command := range traces {
		out, err := kind.Exec(ctx, node, "sh", "-c", command)
		gomega.ExpectWithOffset(1, err).
			NotTo(gomega.HaveOccurred(), "looking for %s on %s", trace, node)
		if out = strings.TrimSpace(out); out != "" {
			found[trace] = out
		}
	}
	return found
}

// asInstalled is the manifest with the network's configuration as it is in the cluster: an
// installation may have altered it.
func asInstalled(ctx context.Context, cluster *framework.TheCluster) []*unstructured.Unstructured {
	objects := readManifest("install.yaml")
	for _, object := range objects {
		if object.GetKind() != "ConfigMap" {
			continue
		}
		there, err := cluster.Client.CoreV1().ConfigMaps(object.GetNamespace()).
			Get(ctx, object.GetName(), metav1.GetOptions{})
		gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
		gomega.ExpectWithOffset(1,
			unstructured.SetNestedStringMap(object.Object, there.Data, "data")).To(gomega.Succeed())
	}
	return objects
}

// installAgain applies the manifest, lets pods onto the nodes, and waits until all is as it was.
func installAgain(ctx context.Context, cluster *framework.TheCluster,
	objects []*unstructured.Unstructured) {
	applyManifest(ctx, cluster, objects)
	for _, node := range cluster.Nodes(ctx) {
		cordon(ctx, cluster, node.Name, false)
	}
	waitAgents(ctx, cluster)
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		for _, node := range cluster.Nodes(ctx) {
			g.Expect(framework.NodeReady(&node)).
				To(gomega.BeTrue(), "%s: %s", node.Name, conditionsOf(&node))
		}
		deployments, err := cluster.Client.AppsV1().Deployments(metav1.NamespaceSystem).
			List(ctx, metav1.ListOptions{})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		for _, deployment := range deployments.Items {
			g.Expect(deployment.Status.ReadyReplicas).
				To(gomega.Equal(*deployment.Spec.Replicas), deployment.Name)
		}
	}).WithContext(ctx).WithTimeout(4*time.Minute).
		Should(gomega.Succeed(), "nodes and what runs on them are Ready")
}

// emptyNodes deletes all pods that have their network from Sluice, until there is none on any node.
func emptyNodes(ctx context.Context, cluster *framework.TheCluster) {
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		pods, err := cluster.Client.CoreV1().Pods(metav1.NamespaceAll).
			List(ctx, metav1.ListOptions{})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		var left []string
		for _, pod := range pods.Items {
			ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
			if pod.Spec.HostNetwork || pod.Spec.NodeName == "" || ended {
				continue
			}
			left = append(left, pod.Namespace+"/"+pod.Name)
			if pod.DeletionTimestamp == nil {
				g.Expect(cluster.Objects.Delete(ctx, &pod)).To(gomega.Succeed())
			}
		}
		g.Expect(left).To(gomega.BeEmpty(), "pods on nodes")
	}).WithContext(ctx).WithTimeout(3*time.Minute).Should(gomega.Succeed(), "draining all nodes")
}

// awaitCleaners waits until the pods that clean say that they are done, on so many nodes.
func awaitCleaners(ctx context.Context, cluster *framework.TheCluster, nodes int) {
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		set, err := cluster.Client.AppsV1().DaemonSets(framework.AgentNamespace).
			Get(ctx, "sluice-uninstall", metav1.GetOptions{})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(set.Status.ObservedGeneration).To(gomega.Equal(set.Generation))
		g.Expect(set.Status.NumberReady).To(gomega.BeEquivalentTo(nodes))
	}).WithContext(ctx).WithTimeout(3*time.Minute).Should(gomega.Succeed(), "every node is clean")
}
