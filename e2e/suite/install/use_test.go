package install

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

var _ = ginkgo.Describe("A new cluster", framework.Fast, ginkgo.Ordered, ginkgo.ContinueOnFailure,
	func() {
		var cluster *framework.TheCluster
		var pods []*framework.Pod // one on each worker

		ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) {
			cluster = framework.Cluster()
			namespace := cluster.Namespace(ctx, "install", nil)
			for _, node := range cluster.Workers(ctx) {
				pods = append(pods, cluster.CreatePod(ctx, namespace, framework.PodOptions{
					Name: "on-" + node.Name, Node: node.Name,
					Args: []string{"serve", "--name", "on-" + node.Name, "--serve", "tcp/80",
						"--linger", "0s"},
				}))
			}
			cluster.WaitReady(ctx, pods...)
		}, ginkgo.NodeTimeout(3*time.Minute))

		ginkgo.It("answers kubectl exec", func(ctx ginkgo.SpecContext) {
			for _, pod := range pods {
				results := pod.Connect(ctx,
					framework.Target("tcp", netip.MustParseAddr("127.0.0.1"), 80))
				gomega.Expect(results[0].OK).To(gomega.BeTrue(), "%s", results[0])
				gomega.Expect(results[0].Reply).To(gomega.HavePrefix(pod.Name + " "))
			}
		}, ginkgo.SpecTimeout(time.Minute))

		ginkgo.It("answers kubectl logs", func(ctx ginkgo.SpecContext) {
			for _, pod := range pods {
				gomega.Eventually(ctx, func() []testprogram.Report {
					return testprogram.ReadLog(pod.Logs(ctx))
				}).WithContext(ctx).
					Should(gomega.ContainElement(testprogram.Report{Serving: true}),
						"the log of %s", pod)
			}
		}, ginkgo.SpecTimeout(time.Minute))

		ginkgo.It("answers kubectl port-forward", func(ctx ginkgo.SpecContext) {
			for _, pod := range pods {
				port, err := pod.PortForward(ctx, 80)
				gomega.Expect(err).NotTo(gomega.HaveOccurred())
				for range 3 {
					reply, err := askLine(ctx, port, "a question")
					gomega.Expect(err).NotTo(gomega.HaveOccurred(), "talking to %s through port %d",
						pod, port)
					gomega.Expect(reply).To(gomega.And(gomega.HavePrefix(pod.Name+" "),
						gomega.HaveSuffix(" a question\n")))
				}
			}
		}, ginkgo.SpecTimeout(time.Minute))

		ginkgo.It("resolves the names of Services", func(ctx ginkgo.SpecContext) {
			want := clusterIPs(ctx, cluster, metav1.NamespaceDefault, "kubernetes")
			for _, pod := range pods {
				expectResolves(ctx, pod, want, "kubernetes.default.svc")
			}
		}, ginkgo.SpecTimeout(2*time.Minute))

		ginkgo.It("answers DNS at every address of CoreDNS, of every family",
			func(ctx ginkgo.SpecContext) {
				want := clusterIPs(ctx, cluster, metav1.NamespaceDefault, "kubernetes")
				servers := clusterIPs(ctx, cluster, metav1.NamespaceSystem, "kube-dns")
				list, err := cluster.Client.CoreV1().Pods(metav1.NamespaceSystem).
					List(ctx, metav1.ListOptions{LabelSelector: "k8s-app=kube-dns"})
				gomega.Expect(err).NotTo(gomega.HaveOccurred())
				seen := map[corev1.IPFamily]bool{}
				for _, object := range list.Items {
					if object.DeletionTimestamp != nil || object.Status.Phase != corev1.PodRunning {
						continue
					}
					for _, ip := range object.Status.PodIPs {
						addr := netip.MustParseAddr(ip.IP)
						seen[framework.FamilyOf(addr)] = true
						servers = append(servers, addr)
					}
				}
				for _, family := range cluster.Families {
					gomega.Expect(seen).To(gomega.HaveKey(family), "families of CoreDNS' addresses")
				}
				for _, pod := range pods {
					for _, server := range servers {
						expectResolves(ctx, pod, want, "--server", server.String(),
							"kubernetes.default.svc")
					}
				}
			}, ginkgo.SpecTimeout(3*time.Minute))
	})

// expectResolves has the pod look a name up until the answer is exactly these addresses, in any
// order.
func expectResolves(ctx context.Context, pod *framework.Pod, want []netip.Addr, args ...string) {
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		stdout, err := pod.Exec(ctx, append([]string{"resolve"}, args...)...)
		g.Expect(err).NotTo(gomega.HaveOccurred())
		var resolved testprogram.Resolved
		g.Expect(json.Unmarshal([]byte(stdout), &resolved)).To(gomega.Succeed(), "%s", stdout)
		g.Expect(resolved.Error).To(gomega.BeEmpty())
		g.Expect(resolved.Addresses).To(gomega.ConsistOf(want))
	}).WithContext(ctx).Should(gomega.Succeed(), "%v in %s", args, pod)
}

// clusterIPs are the addresses of a Service, of every family.
func clusterIPs(ctx context.Context, cluster *framework.TheCluster,
	namespace, name string) []netip.Addr {
	service, err := cluster.Client.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	gomega.ExpectWithOffset(1, err).
		NotTo(gomega.HaveOccurred(), "getting Service %s/%s", namespace, name)
	var addrs []netip.Addr
	for _, ip := range service.Spec.ClusterIPs {
		addrs = append(addrs, netip.MustParseAddr(ip))
	}
	return addrs
}

// askLine sends a line to a local port and returns the line that comes back.
func askLine(ctx context.Context, port int, question string) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, question); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}
