package life

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// agentOn returns the pod of a node's agent, or nil between two of them.
func agentOn(ctx context.Context, g gomega.Gomega, cluster *framework.TheCluster,
	node string) *corev1.Pod {
	pods, err := cluster.Client.CoreV1().Pods(framework.AgentNamespace).
		List(ctx, metav1.ListOptions{
			LabelSelector: framework.AgentSelector, FieldSelector: "spec.nodeName=" + node,
		})
	g.Expect(err).NotTo(gomega.HaveOccurred(), "listing the agents of %s", node)
	for i := range pods.Items {
		if pods.Items[i].DeletionTimestamp == nil {
			return &pods.Items[i]
		}
	}
	return nil
}

// waitAgent waits until a node's agent is Ready, one that has been started since then.
func waitAgent(ctx context.Context, cluster *framework.TheCluster, node string, since time.Time) {
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		pod := agentOn(ctx, g, cluster, node)
		g.Expect(pod).NotTo(gomega.BeNil(), "the agent's pod")
		g.Expect(pod.Status.ContainerStatuses).NotTo(gomega.BeEmpty())
		status := pod.Status.ContainerStatuses[0]
		g.Expect(status.State.Running).
			NotTo(gomega.BeNil(), "the agent's container runs: %+v", status.State)
		// Times of Kubernetes are cut to the second.
		g.Expect(status.State.Running.StartedAt.Time).
			To(gomega.BeTemporally(">=", since.Truncate(time.Second)), "when it was started")
		g.Expect(status.Ready).To(gomega.BeTrue(), "the agent is Ready")
	}).WithContext(ctx).WithTimeout(3*time.Minute).Should(gomega.Succeed(), "the agent of %s", node)
}

// agentPIDs is a shell's loop that runs COMMAND for each agent's process ($pid) of a node, which
// has no more than a shell for that.
const agentPIDs = `for comm in /proc/[0-9]*/comm; do
	{ read -r name <"$comm"; } 2>/dev/null || continue
	[ "$name" = sluice-agent ] || continue
	pid=${comm%/comm}; pid=${pid#/proc/}
	COMMAND
done`

// onAgents runs a command of the shell for each agent's process ($pid) of a node, and returns what
// was printed.
func onAgents(ctx context.Context, kind *framework.Kind, node, command string) string {
	out, err := kind.Exec(ctx, node, "sh", "-c", strings.ReplaceAll(agentPIDs, "COMMAND", command))
	gomega.ExpectWithOffset(2, err).
		NotTo(gomega.HaveOccurred(), "looking for the agent on %s", node)
	return strings.TrimSpace(out)
}

// killAgent kills a node's agent as the kernel would, where it can get at it, and otherwise deletes
// its pod without grace.
func killAgent(ctx context.Context, cluster *framework.TheCluster, node string) {
	if cluster.Kind != nil {
		killed := onAgents(ctx, cluster.Kind, node, `kill -9 "$pid" && echo killed`)
		gomega.ExpectWithOffset(1, killed).To(gomega.Equal("killed"), "one agent on %s", node)
		return
	}
	now := int64(0)
	deleteAgent(ctx, cluster, node, &now)
}

// deleteAgent deletes the pod of a node's agent, with its own grace if grace is nil, and doesn't
// wait.
func deleteAgent(ctx context.Context, cluster *framework.TheCluster, node string, grace *int64) {
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		pod := agentOn(ctx, g, cluster, node)
		g.Expect(pod).NotTo(gomega.BeNil())
		g.Expect(cluster.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name,
			metav1.DeleteOptions{GracePeriodSeconds: grace})).To(gomega.Succeed())
	}).WithContext(ctx).Should(gomega.Succeed(), "deleting the agent of %s", node)
}

// keepAgentDead kills a node's agent again whenever it is back, for some time.
func keepAgentDead(ctx context.Context, kind *framework.Kind, node string,
	length time.Duration) (killed int) {
	for end := time.Now().Add(length); time.Now().Before(end); {
		killed += strings.Count(onAgents(ctx, kind, node, `kill -9 "$pid" && echo killed`),
			"killed")
		select {
		case <-ctx.Done():
			return killed
		case <-time.After(framework.Poll):
		}
	}
	return killed
}

// restartAgents does what "kubectl rollout restart" does.
func restartAgents(ctx context.Context, cluster *framework.TheCluster) {
	patch :=
		fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339))
	_, err := cluster.Client.AppsV1().DaemonSets(framework.AgentNamespace).
		Patch(ctx, framework.AgentName,
			types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred(), "restarting the agents")
}

// agentsUpdated says whether every node has a Ready agent of the current template.
func agentsUpdated(ctx context.Context, cluster *framework.TheCluster) bool {
	var agents *appsv1.DaemonSet
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) (err error) {
		agents, err = cluster.Client.AppsV1().DaemonSets(framework.AgentNamespace).
			Get(ctx, framework.AgentName, metav1.GetOptions{})
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "getting the agents' DaemonSet")
	status := agents.Status
	return status.ObservedGeneration == agents.Generation && status.DesiredNumberScheduled > 0 &&
		status.UpdatedNumberScheduled == status.DesiredNumberScheduled &&
		status.NumberReady == status.DesiredNumberScheduled
}

// waitAgents waits until every node has a Ready agent of the current template.
func waitAgents(ctx context.Context, cluster *framework.TheCluster) {
	gomega.EventuallyWithOffset(1, ctx, func() bool {
		return agentsUpdated(ctx, cluster)
	}).WithContext(ctx).WithTimeout(5*time.Minute).
		Should(gomega.BeTrue(), "every node has a Ready agent")
}
