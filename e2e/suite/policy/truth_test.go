package policy

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// Service ports lead to pod ports that are this much lower, so that a policy that took one for the
// other would show.
const serviceOffset = 8000

// The truth table: who of nine pods reaches whom, at which port, under each of a number of
// policies. The pods a, b and c of each of the namespaces x, y and z are spread over the workers.
// From every pod every port of every pod is tried, in every family, at the pod's address and
// through a Service.
var _ = ginkgo.Describe("truth table", framework.Table, ginkgo.Ordered, ginkgo.ContinueOnFailure,
	func() {
		var w *world
		var cells []*cell

		ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) {
			w = newTruthWorld(ctx)
			cells = w.truthCells(ctx)
			ginkgo.AddReportEntry("truth table",
				fmt.Sprintf("%d connections for each policy", len(cells)))
		}, ginkgo.NodeTimeout(framework.PodPatience*2))

		ginkgo.It("connects everything without policies", framework.Fast, framework.Proxied,
			func(ctx ginkgo.SpecContext) {
				w.expect(ctx, all(cells, true))
			}, ginkgo.SpecTimeout(framework.Patience*2))

		for _, tc := range truthCases {
			var labels ginkgo.Labels
			if tc.fast {
				labels = append(labels, framework.Fast...)
			}
			if tc.proxied {
				labels = append(labels, framework.Proxied...)
			}
			ginkgo.It(tc.name, labels, func(ctx ginkgo.SpecContext) {
				w.apply(ctx, w.render(tc.policies))
				w.judge(ctx, cells)
				var disagree []string
				for _, c := range cells {
					if tc.allows != nil && c.want != (c.from == c.to || tc.allows(c)) {
						disagree = append(disagree,
							fmt.Sprintf("%s > %s %s/%d %s: the evaluator says %v", c.from, c.to,
								c.protocol, c.port, c.family, c.want))
					}
				}
				gomega.Expect(disagree).To(gomega.BeEmpty(),
					"what was written by hand and what the evaluator says")
				w.expect(ctx, cells)
				if tc.also != nil {
					tc.also(ctx, w)
				}
			}, ginkgo.SpecTimeout(framework.Patience*2))
		}

		ginkgo.It("connects everything once the policies are gone", framework.Fast,
			framework.Proxied,
			func(ctx ginkgo.SpecContext) {
				w.expect(ctx, all(cells, true))
			}, ginkgo.SpecTimeout(framework.Patience*2))
	})

// newTruthWorld makes the namespaces, labelled ns=x and so on, and the pods, labelled pod=a and so
// on. The pods a and b have their port web (TCP) and query (UDP) at 80, the pods c at 81.
func newTruthWorld(ctx context.Context) *world {
	w := newWorld()
	workers := w.cluster.Workers(ctx)
	var members []member
	for i, ns := range []string{"x", "y", "z"} {
		w.namespace(ctx, ns, map[string]string{"ns": ns})
		for k, name := range []string{"a", "b", "c"} {
			number := int32(80)
			if name == "c" {
				number = 81
			}
			members = append(members, member{
				name: ns + "/" + name, node: workers[(i+k)%len(workers)].Name,
				labels: map[string]string{"pod": name},
				ports: []corev1.ContainerPort{
					{Name: "web", ContainerPort: number},
					{Name: "query", ContainerPort: number, Protocol: corev1.ProtocolUDP},
				},
				serves: []string{"tcp/80", "tcp/81", "udp/80", "udp/81", "sctp/80"},
			})
		}
	}
	w.start(ctx, members...)
	return w
}

// truthCells makes a Service for each pod, and lists every connection.
func (w *world) truthCells(ctx context.Context) []*cell {
	ports := []testprogram.Port{
		{Protocol: testprogram.TCP, Number: 80}, {Protocol: testprogram.TCP, Number: 81},
		{Protocol: testprogram.UDP, Number: 80}, {Protocol: testprogram.UDP, Number: 81},
	}
	if why := w.sctpFails(ctx, 80); why != "" {
		ginkgo.AddReportEntry("SCTP left out of the truth table", why)
	} else {
		ports = append(ports, testprogram.Port{Protocol: testprogram.SCTP, Number: 80})
	}
	var cells []*cell
	for to := range w.pods {
		service := w.service(ctx, to)
		for from := range w.pods {
			for _, port := range ports {
				for _, family := range w.cluster.Families {
					direct, _ := w.cell(from, to, port.Protocol, int(port.Number), family)
					cells = append(cells, direct)
					if port.Protocol == testprogram.SCTP {
						continue // not every kube-proxy carries it, nor every kernel
					}
					through := *direct
					through.service = serviceTarget(service, port, family)
					if from == to {
						// masqueraded, or the answer wouldn't come back the same way
						through.source = netip.Addr{}
					}
					cells = append(cells, &through)
				}
			}
		}
	}
	return cells
}

// service makes a Service that leads to one pod.
func (w *world) service(ctx context.Context, to string) *corev1.Service {
	namespace, name := split(to)
	families := corev1.IPFamilyPolicyPreferDualStack
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespaces[namespace], Name: name},
		Spec: corev1.ServiceSpec{IPFamilyPolicy: &families,
			Selector: map[string]string{"pod": name}},
	}
	for _, port := range []int32{80, 81} {
		for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
			service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{
				Name:     fmt.Sprintf("%s-%d", strings.ToLower(string(protocol)), port),
				Protocol: protocol, Port: port + serviceOffset, TargetPort: intstr.FromInt32(port),
			})
		}
	}
	w.cluster.Apply(ctx, service)
	return service
}

func serviceTarget(service *corev1.Service, port testprogram.Port, family corev1.IPFamily) string {
	for _, text := range service.Spec.ClusterIPs {
		if addr, err := netip.ParseAddr(text); err == nil && framework.FamilyOf(addr) == family {
			return framework.Target(port.Protocol, addr, int(port.Number)+serviceOffset)
		}
	}
	ginkgo.Fail(fmt.Sprintf("Service %s has no %s address among %v", service.Name, family,
		service.Spec.ClusterIPs))
	return ""
}
