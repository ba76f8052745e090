package policy

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// samples is the folder of the manifests that users try first.
const samples = "../../../config/samples"

// Addresses in the samples: the pod network, and the one pod that is excepted.
const (
	sampleNetwork = "10.244.0.0/16"
	samplePeer    = "10.244.1.5/32"
)

// outsidePort is what the host outside serves, on a node.
const outsidePort = 28_190

// The samples of config/samples, one after the other, with pods of dev and prod on each of two
// workers, and another node's process as the host outside.
var _ = ginkgo.Describe("dev and prod walk", framework.Fast, func() {
	ginkgo.It("goes as the samples say", func(ctx ginkgo.SpecContext) {
		w, cells := newWalkWorld(ctx)
		network := podNetwork(w.cluster.Nodes(ctx), w.cluster.Families[0])
		// The one way into dev that allow-80-ingress is. The host outside is a node, whose tunnel
		// address is in the pod network too: no pod for that.
		through80 := func(c *cell) bool {
			return c.from != "prod/myapp-2" && c.from != "outside" && network.Contains(c.source) &&
				c.port != 8080
		}
		inDev := func(name string) bool { return strings.HasPrefix(name, "dev/") }
		inProd := func(name string) bool { return strings.HasPrefix(name, "prod/") }
		steps := []struct {
			title, sample string
			holds         func(c *cell) bool
		}{
			{"no policy: everything connects", "", func(*cell) bool { return true }},
			{"nothing gets into dev", "deny-all-ingress.yaml", func(c *cell) bool {
				return !inDev(c.to)
			}},
			{"dev's ports 80 and 443 from the pod network but for one pod", "allow-80-ingress.yaml",
				func(c *cell) bool {
					return !inDev(c.to) || through80(c)
				}},
			{"nothing gets out of prod", "deny-all-egress.yaml", func(c *cell) bool {
				return (!inDev(c.to) || through80(c)) && !inProd(c.from)
			}},
		}
		var applied []*networkingv1.NetworkPolicy
		for _, step := range steps {
			ginkgo.By(step.title)
			if step.sample != "" {
				np := w.sample(ctx, step.sample)
				applied = append(applied, np)
				w.cluster.Apply(ctx, np)
				w.judge(ctx, cells)
				for _, c := range cells {
					gomega.Expect(c.want).To(gomega.Equal(c.from == c.to || step.holds(c)),
						"the evaluator on %s > %s at %d", c.from, c.to, c.port)
				}
			} else {
				all(cells, true)
			}
			w.expect(ctx, cells)
			w.expectReady(ctx)
			if step.sample == "" {
				seen(cells)
			}
		}
		ginkgo.By("delete all policies: everything connects")
		for _, np := range applied {
			w.cluster.Remove(ctx, np)
		}
		w.expect(ctx, all(cells, true))
	}, ginkgo.SpecTimeout(framework.PodPatience*3))
})

// newWalkWorld makes two pods in dev and two in prod, one of each on each worker, and a host
// outside; cells are all connections between them.
func newWalkWorld(ctx context.Context) (*world, []*cell) {
	w := newWorld()
	workers := w.cluster.Workers(ctx)
	used := map[string]bool{}
	var members []member
	for _, ns := range []string{"dev", "prod"} {
		w.namespace(ctx, ns, nil)
		for i := range 2 {
			node := workers[i%len(workers)].Name
			used[node] = true
			members = append(members, member{
				name: fmt.Sprintf("%s/myapp-%d", ns, i+1), node: node,
				labels: map[string]string{"app": "myapp"},
				serves: []string{"tcp/80", "tcp/443", "tcp/8080"},
			})
		}
	}
	var outside *corev1.Node
	for _, node := range w.cluster.Nodes(ctx) {
		if !used[node.Name] && framework.NodeReady(&node) {
			outside = &node
		}
	}
	if outside == nil {
		ginkgo.Skip(
			"every node of this cluster runs the walk's pods: there is none that could be outside")
	}
	w.namespace(ctx, "nodes", nil)
	members = append(members, member{
		name: "nodes/outside", node: outside.Name,
		serves: []string{fmt.Sprintf("tcp/%d", outsidePort)}, inHostNetwork: true,
	})
	w.start(ctx, members...)
	h := w.hosts["nodes/outside"]
	h.addresses = framework.NodeAddresses(outside)
	w.hosts["outside"] = h
	delete(w.hosts, "nodes/outside")
	return w, w.walkCells()
}

func (w *world) walkCells() []*cell {
	var cells []*cell
	add := func(from, to string, port int) {
		for _, family := range w.cluster.Families {
			if c, ok := w.cell(from, to, "tcp", port, family); ok {
				cells = append(cells, c)
			}
		}
	}
	for to := range w.pods {
		for _, port := range []int{80, 443, 8080} {
			for from := range w.pods {
				add(from, to, port)
			}
			add("outside", to, port)
		}
	}
	for from := range w.pods {
		add(from, "outside", outsidePort)
	}
	return cells
}

// seen notes who clients are for the pods that they have reached. Another node's process has the
// node's address, or, if it comes through a tunnel, the node's address in the pod network: for
// policies that is a difference.
func seen(cells []*cell) {
	for _, c := range cells {
		_, client, _ := strings.Cut(c.got.Reply, " ")
		addr, err := netip.ParseAddrPort(client)
		gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred(), "the answer %q", c.got.Reply)
		if c.from == "outside" {
			c.source = addr.Addr()
		}
	}
}

// sample reads a manifest. Its namespaces and addresses become those of the world: the pod network
// that of the primary family, the excepted pod prod/myapp-2.
func (w *world) sample(ctx context.Context, name string) *networkingv1.NetworkPolicy {
	text, err := os.ReadFile(filepath.Join(samples, name))
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	family := w.cluster.Families[0]
	excepted := framework.OfFamily(w.addresses("prod/myapp-2"), family)
	adapted := strings.NewReplacer(
		sampleNetwork, podNetwork(w.cluster.Nodes(ctx), family).String(),
		samplePeer, netip.PrefixFrom(excepted, excepted.BitLen()).String(),
	).Replace(string(text))
	np := &networkingv1.NetworkPolicy{}
	gomega.Expect(yaml.UnmarshalStrict([]byte(adapted), np)).To(gomega.Succeed(), name)
	gomega.Expect(w.namespaces).To(gomega.HaveKey(np.Namespace))
	np.Namespace = w.namespaces[np.Namespace]
	return np
}

// podNetwork is the smallest block with the podCIDRs of all nodes.
func podNetwork(nodes []corev1.Node, family corev1.IPFamily) netip.Prefix {
	var ends []netip.Addr
	for i := range nodes {
		for _, text := range nodes[i].Spec.PodCIDRs {
			prefix, err := netip.ParsePrefix(text)
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			if framework.FamilyOf(prefix.Addr()) == family {
				ends = append(ends, prefix.Addr(), netipx.PrefixLastIP(prefix))
			}
		}
	}
	gomega.Expect(ends).NotTo(gomega.BeEmpty(), "podCIDRs of the family %s", family)
	return cover(ends)
}

// expectReady holds every pod to its readiness: its probes come from its own node, which no policy
// keeps away.
func (w *world) expectReady(ctx context.Context) {
	for _, ns := range w.namespaces {
		list, err := w.cluster.Client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
		for i := range list.Items {
			gomega.ExpectWithOffset(1, isReady(&list.Items[i])).
				To(gomega.BeTrue(), "readiness of %s/%s", ns, list.Items[i].Name)
		}
	}
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func addressesOf(pod *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	for _, ip := range pod.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, addr)
		}
	}
	return out
}
