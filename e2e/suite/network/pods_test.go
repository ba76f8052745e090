package network

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

var _ = ginkgo.Describe("Pods", ginkgo.Ordered, ginkgo.ContinueOnFailure, func() {
	var w *world
	ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) {
		w = newWorld(ctx, "pods")
	}, ginkgo.NodeTimeout(3*time.Minute))

	ginkgo.It("reach each other on one node, as who they are", framework.Fast,
		func(ctx ginkgo.SpecContext) {
			expectAnswers(ctx, w.client, by("server"), as(w.client.Addresses()...),
				everyWay(w.server.Addresses()...)...)
			expectAnswers(ctx, w.farClient, by("far-server"), as(w.farClient.Addresses()...),
				everyWay(w.farServer.Addresses()...)...)
		}, ginkgo.SpecTimeout(2*time.Minute))

	ginkgo.It("reach each other across nodes, as who they are", framework.Fast,
		func(ctx ginkgo.SpecContext) {
			expectAnswers(ctx, w.client, by("far-server"), as(w.client.Addresses()...),
				everyWay(w.farServer.Addresses()...)...)
			expectAnswers(ctx, w.farClient, by("server"), as(w.farClient.Addresses()...),
				everyWay(w.server.Addresses()...)...)
		}, ginkgo.SpecTimeout(2*time.Minute))

	ginkgo.It("have an address of every family of the cluster", framework.Fast, func() {
		for _, pod := range []*framework.Pod{w.client, w.server, w.farClient, w.farServer} {
			gomega.Expect(pod.Addresses()).
				To(gomega.HaveLen(len(w.cluster.Families)), "addresses of %s", pod)
			for i, family := range w.cluster.Families {
				gomega.Expect(framework.FamilyOf(pod.Addresses()[i])).
					To(gomega.Equal(family), "address %d of %s", i, pod)
			}
		}
	})

	ginkgo.It("don't hear from a pod at a port that nobody serves", framework.Fast,
		func(ctx ginkgo.SpecContext) {
			// The control for all the rest: an answer means something.
			for _, addr := range append(w.server.Addresses(), w.farServer.Addresses()...) {
				expectFailure(ctx, w.client, testprogram.Reset, bothAt(port+1, addr)...)
			}
		}, ginkgo.SpecTimeout(time.Minute))

	ginkgo.It("reach each other over SCTP", framework.Fast, func(ctx ginkgo.SpecContext) {
		for _, server := range []*framework.Pod{w.server, w.farServer} {
			targets := server.Targets(testprogram.SCTP, sctpPort)
			if first := w.client.Connect(ctx,
				targets[0])[0]; first.Kind == testprogram.Unsupported {
				ginkgo.Skip("no SCTP here: " + first.Error)
			}
			expectAnswers(ctx, w.client, by(server.Name), as(w.client.Addresses()...), targets...)
		}
	}, ginkgo.SpecTimeout(2*time.Minute))

	ginkgo.It("move 10 MiB over TCP", framework.Fast, func(ctx ginkgo.SpecContext) {
		const size = 10 << 20
		for _, server := range []*framework.Pod{w.server, w.farServer} {
			for _, addr := range server.Addresses() {
				sent := send(ctx, w.client, "--timeout", "60s", "--size", fmt.Sprint(size),
					framework.Target(testprogram.TCP, addr, port))
				gomega.Expect(sent.OK).To(gomega.BeTrue(), "%s", sent.Result)
				ginkgo.AddReportEntry("10 MiB there and back",
					fmt.Sprintf("%s to %s: %.2f s", w.client, server, sent.Seconds))
			}
		}
	}, ginkgo.SpecTimeout(4*time.Minute))

	ginkgo.It("exchange packets of just the MTU, and none that are larger", framework.Fast,
		func(ctx ginkgo.SpecContext) {
			for _, server := range []*framework.Pod{w.server, w.farServer} {
				for _, addr := range server.Addresses() {
					for _, protocol := range []string{testprogram.UDP, testprogram.ICMP} {
						expectMTU(ctx, w.client, framework.Target(protocol, addr, port))
					}
				}
			}
		}, ginkgo.SpecTimeout(4*time.Minute))

	ginkgo.It("have fragments put together", func(ctx ginkgo.SpecContext) {
		for _, server := range []*framework.Pod{w.server, w.farServer} {
			for _, addr := range server.Addresses() {
				sent := send(ctx, w.client, "--size", "8000",
					framework.Target(testprogram.UDP, addr, port))
				gomega.Expect(sent.OK).To(gomega.BeTrue(), "%s", sent.Result)
			}
		}
	}, ginkgo.SpecTimeout(2*time.Minute))
})

// expectMTU finds out the MTU by sending what can't fit. Then a packet of that size must be
// answered by one that large, and one of a byte more must be refused.
func expectMTU(ctx context.Context, from *framework.Pod, target string) {
	tooBig := send(ctx, from, "--df", "--size", "60000", target)
	gomega.Expect(tooBig.Kind).To(gomega.Equal(testprogram.TooBig), "%s", tooBig.Result)
	mtu := tooBig.MTU
	gomega.Expect(mtu).To(gomega.BeNumerically(">=", 1280), "the MTU")
	fits := send(ctx, from, "--df", "--size", fmt.Sprint(mtu), target)
	gomega.Expect(fits.OK).To(gomega.BeTrue(), "a packet of %d bytes: %s", mtu, fits.Result)
	gomega.Expect(fits.MTU).To(gomega.Equal(mtu), "the MTU after a packet of that size has passed")
	more := send(ctx, from, "--df", "--size", fmt.Sprint(mtu+1), target)
	gomega.Expect(more.Kind).To(gomega.Equal(testprogram.TooBig), "a packet of %d bytes: %s", mtu+1,
		more.Result)
	ginkgo.AddReportEntry("MTU", fmt.Sprintf("%d from %s to %s", mtu, from, target))
}

// send runs "testpod send" in the pod.
func send(ctx context.Context, from *framework.Pod, args ...string) testprogram.Sent {
	var sent testprogram.Sent
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		stdout, err := from.Exec(ctx, append([]string{"send"}, args...)...)
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(json.Unmarshal([]byte(stdout), &sent)).To(gomega.Succeed(), "%s", stdout)
	}).WithContext(ctx).Should(gomega.Succeed(), "sending from %s", from)
	return sent
}

var _ = ginkgo.Describe("Nodes and pods", ginkgo.Ordered, ginkgo.ContinueOnFailure, func() {
	var w *world
	var hosts map[string]*framework.Pod
	ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) {
		w = newWorld(ctx, "nodes")
		hosts = w.hostPods(ctx)
	}, ginkgo.NodeTimeout(4*time.Minute))

	ginkgo.It("reach each other: from every node to pods of every node", framework.Fast,
		func(ctx ginkgo.SpecContext) {
			for _, host := range hosts {
				expectAnswers(ctx, host, by("server"), asAnyone(),
					everyWay(w.server.Addresses()...)...)
				expectAnswers(ctx, host, by("far-server"), asAnyone(),
					everyWay(w.farServer.Addresses()...)...)
			}
		}, ginkgo.SpecTimeout(3*time.Minute))

	ginkgo.It("reach each other: from pods to every node and to pods in the nodes' network",
		framework.Fast, func(ctx ginkgo.SpecContext) {
			open := w.serveOnNodes(ctx)
			for _, node := range w.cluster.Nodes(ctx) {
				for _, addr := range w.addressesOf(&node) {
					targets := []string{
						framework.Target(testprogram.TCP, addr, open),
						framework.Target(testprogram.UDP, addr, open),
						framework.Target(testprogram.ICMP, addr, 0),
					}
					for _, client := range []*framework.Pod{w.client, w.farClient} {
						// A pod is itself on its way to its own node. Another node may see it
						// masqueraded: as its node.
						seen := as(client.Addresses()...)
						if own := w.nodeOf(client); own.Name != node.Name {
							seen = as(append(framework.NodeAddresses(own),
								client.Addresses()...)...)
						}
						expectAnswers(ctx, client, by("on-"+node.Name), seen, targets...)
					}
				}
			}
		}, ginkgo.SpecTimeout(3*time.Minute))
})

// serveOnNodes runs a server in the network of each node, named "on-" and the node's name, and
// returns its TCP and UDP port.
func (w *world) serveOnNodes(ctx context.Context) int {
	open := somePort()
	var servers []*framework.Pod
	for _, node := range w.cluster.Nodes(ctx) {
		name := "on-" + node.Name
		servers = append(servers, w.cluster.CreatePod(ctx, w.namespace, framework.PodOptions{
			Name: name, Node: node.Name, HostNetwork: true, Args: []string{
				"serve", "--name", name, "--linger", "0s", "--serve", fmt.Sprintf("tcp/%d", open),
				"--serve", fmt.Sprintf("udp/%d", open),
			},
		}))
	}
	w.cluster.WaitReady(ctx, servers...)
	return open
}
