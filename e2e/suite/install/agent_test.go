package install

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

var _ = ginkgo.Describe("The installation", framework.Fast, func() {
	ginkgo.It("makes every node Ready", func(ctx ginkgo.SpecContext) {
		cluster := framework.Cluster()
		gomega.Eventually(ctx, func() (unready []string) {
			for _, node := range cluster.Nodes(ctx) {
				for _, condition := range node.Status.Conditions {
					if condition.Type == corev1.NodeReady &&
						condition.Status != corev1.ConditionTrue ||
						condition.Type == corev1.NodeNetworkUnavailable &&
							condition.Status == corev1.ConditionTrue {
						unready = append(unready, fmt.Sprintf("%s: %s=%s: %s", node.Name,
							condition.Type, condition.Status, condition.Message))
					}
				}
			}
			return unready
		}).WithContext(ctx).WithTimeout(framework.PodPatience).
			Should(gomega.BeEmpty(), "nodes that aren't Ready")
	}, ginkgo.SpecTimeout(2*time.Minute))

	ginkgo.It("has a ready agent on every node", func(ctx ginkgo.SpecContext) {
		cluster := framework.Cluster()
		gomega.Eventually(ctx, func(g gomega.Gomega) {
			agents := agentSet(ctx, g, cluster)
			status := agents.Status
			g.Expect(status.ObservedGeneration).
				To(gomega.Equal(agents.Generation), "the generation that was acted on")
			g.Expect(status.DesiredNumberScheduled).
				To(gomega.BeEquivalentTo(len(cluster.Nodes(ctx))),
					"nodes that are to have an agent")
			g.Expect(status.UpdatedNumberScheduled).
				To(gomega.Equal(status.DesiredNumberScheduled), "agents of the current template")
			g.Expect(status.NumberReady).To(gomega.Equal(status.DesiredNumberScheduled),
				"ready agents")
			// Ready means what the agent says of itself.
			probe := agents.Spec.Template.Spec.Containers[0].ReadinessProbe
			g.Expect(probe).NotTo(gomega.BeNil(), "the agent's readiness probe")
			g.Expect(probe.HTTPGet).NotTo(gomega.BeNil(), "the agent's readiness probe over HTTP")
			g.Expect(probe.HTTPGet.Path).To(gomega.Equal("/readyz"))
		}).WithContext(ctx).WithTimeout(framework.PodPatience).Should(gomega.Succeed())
	}, ginkgo.SpecTimeout(2*time.Minute))

	ginkgo.It("has its plugin and its network configuration on every node", framework.OnKind,
		func(ctx ginkgo.SpecContext) {
			cluster := framework.Cluster()
			kind := cluster.RequireKind()
			if args := agentSet(ctx, gomega.Default, cluster).
				Spec.Template.Spec.Containers[0].Args; slices.Contains(args, "--policy-only") {
				ginkgo.Skip("the agent only enforces policy here: the network is somebody else's")
			}
			for _, node := range cluster.Nodes(ctx) {
				names, err := kind.Exec(ctx, node.Name, "ls", "/etc/cni/net.d")
				gomega.Expect(err).NotTo(gomega.HaveOccurred())
				gomega.Expect(strings.Fields(names)).
					NotTo(gomega.BeEmpty(), "network configurations of %s", node.Name)
				gomega.Expect(strings.Fields(names)[0]).To(gomega.Equal("05-sluice.conflist"),
					"the first of %s, which the runtime takes", node.Name)
				conflist, err := kind.Exec(ctx, node.Name, "cat",
					"/etc/cni/net.d/05-sluice.conflist")
				gomega.Expect(err).NotTo(gomega.HaveOccurred())
				var content struct {
					Plugins []struct{ Type string }
				}
				gomega.Expect(json.Unmarshal([]byte(conflist), &content)).
					To(gomega.Succeed(), "%s", conflist)
				gomega.Expect(content.Plugins).NotTo(gomega.BeEmpty(), "%s", conflist)
				gomega.Expect(content.Plugins[0].Type).To(gomega.Equal("sluice"))
				versions, err := kind.Exec(ctx, node.Name, "sh", "-c",
					`echo '{"cniVersion":"1.1.0"}' | CNI_COMMAND=VERSION /opt/cni/bin/sluice`)
				gomega.Expect(err).NotTo(gomega.HaveOccurred(),
					"asking the plugin on %s for its versions", node.Name)
				gomega.Expect(versions).To(gomega.ContainSubstring(`"1.1.0"`))
			}
		}, ginkgo.SpecTimeout(time.Minute))
})

// agentSet reads the agents' DaemonSet.
func agentSet(ctx ginkgo.SpecContext, g gomega.Gomega,
	cluster *framework.TheCluster) *appsv1.DaemonSet {
	agents, err := cluster.Client.AppsV1().DaemonSets(framework.AgentNamespace).
		Get(ctx, framework.AgentName, metav1.GetOptions{})
	g.Expect(err).NotTo(gomega.HaveOccurred(), "getting the agents' DaemonSet")
	return agents
}
