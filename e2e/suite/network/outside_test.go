package network

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/onsi/ginkgo/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

var _ = ginkgo.Describe("Hosts outside of the cluster", framework.OnKind, ginkgo.Ordered,
	ginkgo.ContinueOnFailure, func() {
		var w *world
		var outside *framework.Outside
		ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) {
			outside = framework.Cluster().RequireKind().Outside(ctx)
			w = newWorld(ctx, "outside")
		}, ginkgo.NodeTimeout(3*time.Minute))

		ginkgo.It("are reached by pods, and see their nodes", framework.Fast,
			func(ctx ginkgo.SpecContext) {
				for _, client := range []*framework.Pod{w.client, w.farClient} {
					node := w.nodeOf(client)
					var addrs []netip.Addr
					for _, addr := range w.reachable(outside, node) {
						addrs = append(addrs, outside.Address(framework.FamilyOf(addr)))
					}
					expectAnswers(ctx, client, by("outside"), as(w.addressesOf(node)...),
						everyWay(addrs...)...)
				}
			}, ginkgo.SpecTimeout(2*time.Minute))

		ginkgo.It("reach a pod at its host port, as who they are, and so does everybody inside",
			framework.Fast, func(ctx ginkgo.SpecContext) {
				open := somePort()
				pod := w.withHostPort(ctx, "exposed", open, "")
				byHostPort := func(addrs ...netip.Addr) []string { return bothAt(open, addrs...) }
				expectAnswers(ctx, outside, by("exposed"), as(outside.Addresses()...),
					byHostPort(w.reachable(outside, &w.here)...)...)
				own := byHostPort(w.addressesOf(&w.here)...)
				expectAnswers(ctx, w.client, by("exposed"), as(w.client.Addresses()...), own...)
				// From another node's pod, as that node: this is on its way to a node.
				expectAnswers(ctx, w.farClient, by("exposed"),
					as(append(w.addressesOf(&w.there), w.farClient.Addresses()...)...), own...)
				expectAnswers(ctx, pod, by("exposed"), asAnyone(), own...)
				for name, host := range w.hostPods(ctx) {
					expectAnswers(ctx, host, by("exposed"), asAnyone(), own...)
					if name == w.here.Name && w.cluster.Families[0] == corev1.IPv4Protocol {
						expectAnswers(ctx, host, by("exposed"), asAnyone(),
							byHostPort(netip.MustParseAddr("127.0.0.1"))...)
					}
				}
				// Nowhere else, and no longer than the pod.
				expectFailure(ctx, outside, testprogram.Reset,
					byHostPort(w.reachable(outside, &w.there)...)...)
				pod.Delete(ctx)
				expectFailure(ctx, outside, testprogram.Reset,
					byHostPort(w.reachable(outside, &w.here)...)...)
			}, ginkgo.SpecTimeout(4*time.Minute))

		ginkgo.It("don't reach a pod at a host port of another address",
			func(ctx ginkgo.SpecContext) {
				if w.cluster.Families[0] != corev1.IPv4Protocol {
					ginkgo.Skip("the other address is 127.0.0.1; ::1 is not supported")
				}
				open := somePort()
				w.withHostPort(ctx, "local-only", open, "127.0.0.1")
				host := w.hostPods(ctx)[w.here.Name]
				expectAnswers(ctx, host, by("local-only"), asAnyone(),
					bothAt(open, netip.MustParseAddr("127.0.0.1"))...)
				expectFailure(ctx, outside, testprogram.Reset,
					bothAt(open, w.reachable(outside, &w.here)...)...)
			}, ginkgo.SpecTimeout(3*time.Minute))
	})

// withHostPort is a server on the client's node with a host port over TCP and UDP.
func (w *world) withHostPort(ctx ginkgo.SpecContext, name string, open int,
	hostIP string) *framework.Pod {
	number := int32(open)
	return w.cluster.Server(ctx, w.namespace, framework.PodOptions{
		Name: name, Node: w.here.Name, Args: []string{"--linger", "0s"},
		Ports: []corev1.ContainerPort{
			{Name: "tcp", ContainerPort: port, HostPort: number, HostIP: hostIP,
				Protocol: corev1.ProtocolTCP},
			{Name: "udp", ContainerPort: port, HostPort: number, HostIP: hostIP,
				Protocol: corev1.ProtocolUDP},
		},
	}, fmt.Sprintf("tcp/%d", port), fmt.Sprintf("udp/%d", port))
}

// bothAt are a port over TCP and UDP at each address.
func bothAt(number int, addrs ...netip.Addr) []string {
	var targets []string
	for _, addr := range addrs {
		targets = append(targets, framework.Target(testprogram.TCP, addr, number),
			framework.Target(testprogram.UDP, addr, number))
	}
	return targets
}
