package policy

import (
	"context"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// judge has the evaluator, fed with the objects of the world as the API server stores them, say
// what must become of each cell.
func (w *world) judge(ctx context.Context, cells []*cell) {
	evaluator := w.evaluator(ctx)
	for _, c := range cells {
		c.want = evaluator.Explain(w.flow(c)).Allowed
	}
}

// evaluator reads the world's objects.
func (w *world) evaluator(ctx context.Context) *cluster.Cluster {
	evaluator := cluster.New(cluster.Options{PolicyOnly: true})
	gomega.EventuallyWithOffset(2, ctx, func(g gomega.Gomega, ctx context.Context) {
		evaluator = cluster.New(cluster.Options{PolicyOnly: true})
		nodes, err := w.cluster.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		for i := range nodes.Items {
			evaluator.SetNode(policy.NodeFrom(&nodes.Items[i]))
		}
		for _, name := range w.namespaces {
			namespace, err := w.cluster.Client.CoreV1().Namespaces().
				Get(ctx, name, metav1.GetOptions{})
			g.Expect(err).NotTo(gomega.HaveOccurred())
			evaluator.SetNamespace(name, namespace.Labels)
			pods, err := w.cluster.Client.CoreV1().Pods(name).List(ctx, metav1.ListOptions{})
			g.Expect(err).NotTo(gomega.HaveOccurred())
			for i := range pods.Items {
				evaluator.SetPod(policy.PodFrom(&pods.Items[i]))
			}
			policies, err := w.cluster.Client.NetworkingV1().NetworkPolicies(name).
				List(ctx, metav1.ListOptions{})
			g.Expect(err).NotTo(gomega.HaveOccurred())
			for i := range policies.Items {
				parsed := policy.Parse(&policies.Items[i])
				for _, problem := range parsed.Problems {
					// A section whose type isn't listed is a problem of that kind, too, and is left
					// out like the rest.
					g.Expect(problem.Field).To(gomega.BeElementOf("spec.ingress", "spec.egress"),
						"unreadable in %s", policies.Items[i].Name)
				}
				evaluator.SetPolicy(parsed)
			}
		}
	}).WithContext(ctx).Should(gomega.Succeed(), "reading what the evaluator judges by")
	return evaluator
}

// flow is a cell as it is judged: with the address that the destination sees, or else the source's
// own.
func (w *world) flow(c *cell) policy.Flow {
	f := policy.Flow{Source: c.source, Destination: c.dest, Port: uint16(c.port)}
	if !f.Source.IsValid() {
		f.Source = framework.OfFamily(w.addresses(c.from), c.family)
	}
	switch c.protocol {
	case testprogram.TCP:
		f.Protocol = policy.ProtocolTCP
	case testprogram.UDP:
		f.Protocol = policy.ProtocolUDP
	case testprogram.SCTP:
		f.Protocol = policy.ProtocolSCTP
	default:
		f.Protocol = 1
		if c.family == corev1.IPv6Protocol {
			f.Protocol = 58
		}
	}
	return f
}
