package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// servicePort is the port of this suite's Services: not that of their pods.
const servicePort = 8080

// service makes a Service for the pods with these labels, in every family of the cluster, over TCP
// and UDP.
func (w *world) service(ctx context.Context, name string, selector map[string]string,
	mutate func(*corev1.ServiceSpec)) *corev1.Service {
	families := corev1.IPFamilyPolicyPreferDualStack
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: corev1.ServiceSpec{Selector: selector, IPFamilyPolicy: &families,
			Ports: []corev1.ServicePort{
				{Name: "tcp", Protocol: corev1.ProtocolTCP, Port: servicePort,
					TargetPort: intstr.FromInt32(port)},
				{Name: "udp", Protocol: corev1.ProtocolUDP, Port: servicePort,
					TargetPort: intstr.FromInt32(port)},
			}},
	}
	if mutate != nil {
		mutate(&service.Spec)
	}
	w.cluster.Apply(ctx, service)
	return service
}

// clusterTargets are a Service's ClusterIPs over TCP and UDP.
func clusterTargets(service *corev1.Service) []string {
	var targets []string
	for _, ip := range service.Spec.ClusterIPs {
		for _, protocol := range []string{testprogram.TCP, testprogram.UDP} {
			targets = append(targets,
				framework.Target(protocol, netip.MustParseAddr(ip), servicePort))
		}
	}
	return targets
}

var _ = ginkgo.Describe("Services", ginkgo.Ordered, ginkgo.ContinueOnFailure, func() {
	var w *world
	ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) {
		w = newWorld(ctx, "services")
	}, ginkgo.NodeTimeout(3*time.Minute))

	ginkgo.It("lead from pods of every node to pods of every node, which see who calls",
		framework.Fast, func(ctx ginkgo.SpecContext) {
			targets := clusterTargets(w.service(ctx, "both", w.serversLabels, nil))
			for _, client := range []*framework.Pod{w.client, w.farClient} {
				var answered []string
				gomega.Eventually(ctx, func() []string {
					answered = append(answered,
						expectAnswers(ctx, client, by("server", "far-server"),
							as(client.Addresses()...), targets...)...)
					return answered
				}).WithContext(ctx).Should(gomega.ContainElements("server", "far-server"),
					"who answered %s", client)
			}
		}, ginkgo.SpecTimeout(3*time.Minute))

	ginkgo.It("lead from nodes to pods of every node", framework.Fast,
		func(ctx ginkgo.SpecContext) {
			targets := clusterTargets(w.service(ctx, "from-nodes", w.serversLabels, nil))
			for _, host := range w.hostPods(ctx) {
				var answered []string
				gomega.Eventually(ctx, func() []string {
					answered = append(answered,
						expectAnswers(ctx, host, by("server", "far-server"), asAnyone(),
							targets...)...)
					return answered
				}).WithContext(ctx).Should(gomega.ContainElements("server", "far-server"),
					"who answered %s", host)
			}
		}, ginkgo.SpecTimeout(3*time.Minute))

	ginkgo.It("lead a pod to itself", framework.Fast, func(ctx ginkgo.SpecContext) {
		only := map[string]string{"only": "itself"}
		pod := w.cluster.Server(ctx, w.namespace,
			framework.PodOptions{Name: "itself", Node: w.here.Name, Labels: only,
				Args: []string{"--linger", "0s"}},
			"tcp/80", "udp/80")
		targets := clusterTargets(w.service(ctx, "itself", only, nil))
		expectAnswers(ctx, pod, by("itself"), asAnyone(), targets...)
		expectAnswers(ctx, w.farClient, by("itself"), as(w.farClient.Addresses()...), targets...)
	}, ginkgo.SpecTimeout(3*time.Minute))

	ginkgo.It("without pods refuse at once", func(ctx ginkgo.SpecContext) {
		expectFailure(ctx, w.client, testprogram.Reset,
			clusterTargets(w.service(ctx, "nobody", map[string]string{"no": "body"}, nil))...)
	}, ginkgo.SpecTimeout(time.Minute))

	ginkgo.It("are found by their names", framework.Fast, func(ctx ginkgo.SpecContext) {
		w.service(ctx, "named", w.serversLabels, nil)
		for _, client := range []*framework.Pod{w.client, w.farClient} {
			for _, name := range []string{"named", "named." + w.namespace + ".svc"} {
				expectAnswers(ctx, client, by("server", "far-server"), as(client.Addresses()...),
					fmt.Sprintf("tcp://%s:%d", name, servicePort),
					fmt.Sprintf("udp://%s:%d", name, servicePort))
			}
		}
	}, ginkgo.SpecTimeout(2*time.Minute))

	ginkgo.It("without an address of their own are the names of their pods", framework.Fast,
		func(ctx ginkgo.SpecContext) {
			w.service(ctx, "headless", w.serversLabels, func(spec *corev1.ServiceSpec) {
				spec.ClusterIP = corev1.ClusterIPNone
			})
			want := append(slices.Clone(w.server.Addresses()), w.farServer.Addresses()...)
			for _, client := range []*framework.Pod{w.client, w.farClient} {
				gomega.Eventually(ctx, func() []netip.Addr {
					return resolve(ctx, client, "headless")
				}).WithContext(ctx).Should(gomega.ConsistOf(want))
				expectAnswers(ctx, client, by("server", "far-server"), as(client.Addresses()...),
					fmt.Sprintf("tcp://headless:%d", port))
			}
		}, ginkgo.SpecTimeout(2*time.Minute))

	ginkgo.It("have names with more addresses than a packet holds: DNS over TCP", framework.Fast,
		func(ctx ginkgo.SpecContext) {
			w.service(ctx, "many", nil, func(spec *corev1.ServiceSpec) {
				spec.ClusterIP = corev1.ClusterIPNone
			})
			want := w.manyEndpoints(ctx, "many", 100)
			for _, client := range []*framework.Pod{w.client, w.farClient} {
				gomega.Eventually(ctx, func() []netip.Addr {
					return resolve(ctx, client, "many")
				}).WithContext(ctx).Should(gomega.ConsistOf(want))
			}
		}, ginkgo.SpecTimeout(2*time.Minute))
})
