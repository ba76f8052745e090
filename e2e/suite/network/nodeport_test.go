package network

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

var _ = ginkgo.Describe("NodePorts", ginkgo.Ordered, ginkgo.ContinueOnFailure, func() {
	var w *world
	ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) {
		w = newWorld(ctx, "nodeports")
	}, ginkgo.NodeTimeout(3*time.Minute))

	// nodePort makes a Service for the server on the client's node only.
	nodePort := func(ctx context.Context, name string,
		policy corev1.ServiceExternalTrafficPolicy) *corev1.Service {
		return w.service(ctx, name, map[string]string{"name": "server"},
			func(spec *corev1.ServiceSpec) {
				spec.Type = corev1.ServiceTypeNodePort
				spec.ExternalTrafficPolicy = policy
			})
	}

	ginkgo.It("of every node lead to a pod, from every node and from pods", framework.Fast,
		func(ctx ginkgo.SpecContext) {
			service := nodePort(ctx, "inside", corev1.ServiceExternalTrafficPolicyCluster)
			var targets []string
			for _, node := range w.cluster.Nodes(ctx) {
				targets = append(targets, nodeTargets(service, w.addressesOf(&node)...)...)
			}
			for _, host := range w.hostPods(ctx) {
				expectAnswers(ctx, host, by("server"), asAnyone(), targets...)
			}
			for _, client := range []*framework.Pod{w.client, w.farClient} {
				expectAnswers(ctx, client, by("server"), asAnyone(), targets...)
			}
		}, ginkgo.SpecTimeout(3*time.Minute))

	ginkgo.It("with externalTrafficPolicy Cluster lead there from outside by every node, as a node",
		framework.Fast, framework.OnKind,
		func(ctx ginkgo.SpecContext) {
			outside := w.cluster.RequireKind().Outside(ctx)
			service := nodePort(ctx, "from-outside", corev1.ServiceExternalTrafficPolicyCluster)
			for _, node := range w.cluster.Nodes(ctx) {
				targets := nodeTargets(service, w.reachable(outside, &node)...)
				expectAnswers(ctx, outside, by("server"), gomega.Not(as(outside.Addresses()...)),
					targets...)
			}
		}, ginkgo.SpecTimeout(3*time.Minute))

	ginkgo.It("with externalTrafficPolicy Local lead there by the pod's node only, as who calls",
		framework.Fast, framework.OnKind, func(ctx ginkgo.SpecContext) {
			outside := w.cluster.RequireKind().Outside(ctx)
			service := nodePort(ctx, "local", corev1.ServiceExternalTrafficPolicyLocal)
			expectAnswers(ctx, outside, by("server"), as(outside.Addresses()...),
				nodeTargets(service, w.reachable(outside, &w.here)...)...)
			// Not by a node without a pod of the Service.
			expectFailure(ctx, outside, testprogram.Timeout,
				nodeTargets(service, w.reachable(outside, &w.there)...)...)
		}, ginkgo.SpecTimeout(3*time.Minute))
})

// nodeTargets are a Service's NodePorts over TCP and UDP at a node's addresses.
func nodeTargets(service *corev1.Service, addrs ...netip.Addr) []string {
	var targets []string
	for _, addr := range addrs {
		if !slices.Contains(service.Spec.IPFamilies, framework.FamilyOf(addr)) {
			continue
		}
		for _, port := range service.Spec.Ports {
			protocol := testprogram.TCP
			if port.Protocol == corev1.ProtocolUDP {
				protocol = testprogram.UDP
			}
			targets = append(targets, framework.Target(protocol, addr, int(port.NodePort)))
		}
	}
	return targets
}

// reachable are the node's addresses of the cluster's families that the host outside has an address
// for too. There is one at least.
func (w *world) reachable(outside *framework.Outside, node *corev1.Node) []netip.Addr {
	addrs := slices.DeleteFunc(w.addressesOf(node), func(addr netip.Addr) bool {
		return !outside.Address(framework.FamilyOf(addr)).IsValid()
	})
	gomega.ExpectWithOffset(1, addrs).NotTo(gomega.BeEmpty(),
		"addresses of %s that can be reached from %v", node.Name, outside.Addresses())
	return addrs
}
