package policy

import (
	"context"
	"fmt"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// Ports that pods open on nodes here.
const (
	hostNetworkPort = 28_290
	hostPort        = 28_291
)

// Lines of the table in docs/meaning.md that are tests of their own.
var _ = ginkgo.Describe("meaning of single cases", func() {
	var w *world
	var near, far corev1.Node

	ginkgo.BeforeEach(func(ctx ginkgo.SpecContext) {
		w = newWorld()
		workers := w.cluster.Workers(ctx)
		near, far = workers[0], workers[len(workers)-1]
		w.namespace(ctx, "shop", nil)
	})

	ginkgo.It(
		"through a NodePort and a hostPort: judged by the pod's port and the client's real address",
		framework.Proxied, func(ctx ginkgo.SpecContext) {
			if near.Name == far.Name {
				ginkgo.Skip(
					"this cluster has one node for pods: there is no other node to come from")
			}
			w.start(ctx, member{
				name: "shop/server", node: near.Name, labels: server, serves: []string{"tcp/80"},
				ports: []corev1.ContainerPort{{ContainerPort: 80, HostPort: hostPort}},
			}, member{name: "shop/out", node: far.Name, inHostNetwork: true})
			h := w.hosts["shop/out"]
			h.addresses = framework.NodeAddresses(&far)
			w.hosts["shop/out"] = h
			nodePort := w.nodePort(ctx)
			cells := func(want bool) []*cell {
				var out []*cell
				for _, family := range w.cluster.Families {
					node := framework.OfFamily(framework.NodeAddresses(&near), family)
					if !node.IsValid() {
						continue
					}
					for _, port := range []int{nodePort, hostPort} {
						c, _ := w.cell("shop/out", "shop/server", testprogram.TCP, 80, family)
						c.service, c.want = framework.Target(testprogram.TCP, node, port), want
						out = append(out, c)
					}
				}
				return out
			}
			w.expect(ctx, cells(true))
			client :=
				`ipBlock: {cidr: "{{ip4 "shop/out"}}/32"}}, {ipBlock: {cidr: "{{ip6 "shop/out"}}/128"}`
			for _, step := range []struct {
				spec string
				want bool
			}{
				{fmt.Sprintf(`{podSelector: {}, ingress: [{from: [{%s}], ports: [{port: 80}]}]}`,
					client), true},
				{
					fmt.Sprintf(`{podSelector: {}, ingress: [{from: [{%s}], ports: [{port: %d}, {port: %d}]}]}`, client, nodePort, hostPort), false},
				{`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "{{ip4 "shop/server"}}/32"}}, {ipBlock: {cidr: "{{ip6 "shop/server"}}/128"}}], ports: [{port: 80}]}]}`, false},
				{`{podSelector: {}, ingress: [{ports: [{port: 80}]}]}`, true},
				{`{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`, false},
			} {
				ginkgo.By(step.spec)
				w.apply(ctx, w.render(map[string]string{"shop/p": step.spec}))
				w.expect(ctx, cells(step.want))
			}
		}, ginkgo.SpecTimeout(framework.PodPatience*3))

	ginkgo.It("hostNetwork pods: they are their node, whatever their labels",
		func(ctx ginkgo.SpecContext) {
			serves := []string{fmt.Sprintf("tcp/%d", hostNetworkPort)}
			named := []corev1.ContainerPort{{Name: "web", ContainerPort: hostNetworkPort}}
			w.start(ctx,
				member{name: "shop/server", node: near.Name, labels: server,
					serves: []string{"tcp/80"}},
				member{name: "shop/client", node: near.Name, labels: friend},
				member{name: "shop/host-near", node: near.Name, labels: friend, ports: named,
					serves: serves, inHostNetwork: true},
			)
			if near.Name != far.Name {
				w.start(ctx,
					member{name: "shop/host-far", node: far.Name, labels: friend, ports: named,
						serves: serves, inHostNetwork: true})
			}
			nodes := map[string]*corev1.Node{"shop/host-near": &near, "shop/host-far": &far}
			cells := func(pairs map[[2]string]bool) []*cell {
				var out []*cell
				for ends, want := range pairs {
					port := 80
					if nodes[ends[1]] != nil {
						port = hostNetworkPort
					}
					if near.Name == far.Name &&
						(ends[0] == "shop/host-far" || ends[1] == "shop/host-far") {
						continue
					}
					for _, family := range w.cluster.Families {
						if c, ok := w.cell(ends[0], ends[1], testprogram.TCP, port, family); ok {
							c.want = want
							out = append(out, c)
						}
					}
				}
				return out
			}
			type pair = [2]string
			ginkgo.By("without policies")
			w.expect(ctx, cells(map[pair]bool{
				{"shop/host-near", "shop/server"}: true, {"shop/host-far", "shop/server"}: true,
				{"shop/client", "shop/server"}:    true,
				{"shop/client", "shop/host-near"}: true, {"shop/client", "shop/host-far"}: true,
				{"shop/host-far", "shop/host-near"}: true,
			}))
			ginkgo.By(
				"they are no selector's peer, but their node may reach its own pods, and no " +
					"policy selects them")
			w.apply(ctx,
				w.render(map[string]string{"shop/p": onlyFriends,
					"shop/q": `{podSelector: {matchLabels: {role: friend}}}`}))
			w.expect(ctx, cells(map[pair]bool{
				{"shop/host-near", "shop/server"}: true, {"shop/host-far", "shop/server"}: false,
				{"shop/client", "shop/server"}:    true,
				{"shop/client", "shop/host-near"}: true, {"shop/client", "shop/host-far"}: true,
				{"shop/host-far", "shop/host-near"}: true,
			}))
			ginkgo.By("the names of their ports are none")
			w.apply(ctx,
				w.render(
					map[string]string{
						"shop/q": `{podSelector: {matchLabels: {role: friend}}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}`}))
			w.expect(ctx, cells(map[pair]bool{
				{"shop/client", "shop/host-near"}: false, {"shop/client", "shop/host-far"}: false,
				{"shop/host-near", "shop/server"}:   true,
				{"shop/host-far", "shop/host-near"}: true,
			}))
		}, ginkgo.SpecTimeout(framework.PodPatience*3))

	ginkgo.It("a named port: all numbers of that name", func(ctx ginkgo.SpecContext) {
		w.start(ctx, member{name: "shop/near", node: near.Name},
			member{name: "shop/far", node: far.Name})
		w.pods["shop/server"] = w.cluster.Server(ctx, w.namespaces["shop"], framework.PodOptions{
			Name: "server", Node: near.Name, Labels: server,
			Args:  []string{"--name", "shop/server", "--linger", "0s"},
			Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 80}},
			Mutate: func(pod *corev1.Pod) {
				second := pod.Spec.Containers[0].DeepCopy()
				second.Name, second.ReadinessProbe = "second", nil
				second.Args = []string{"serve", "--name", "shop/server", "--linger", "0s",
					"--serve", "tcp/81", "--serve", "tcp/82"}
				second.Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: 81}}
				pod.Spec.Containers = append(pod.Spec.Containers, *second)
			},
		}, "tcp/80")
		cells := func(at82 bool) []*cell {
			var out []*cell
			for _, client := range []string{"shop/near", "shop/far"} {
				for port, want := range map[int]bool{80: true, 81: true, 82: at82} {
					for _, family := range w.cluster.Families {
						c, _ := w.cell(client, "shop/server", testprogram.TCP, port, family)
						c.want = want
						out = append(out, c)
					}
				}
			}
			return out
		}
		w.expect(ctx, cells(true))
		w.apply(ctx,
			w.render(
				map[string]string{
					"shop/p": `{podSelector: {matchLabels: {app: server}}, ingress: [{ports: [{port: web}]}]}`}))
		w.expect(ctx, cells(false))
	}, ginkgo.SpecTimeout(framework.PodPatience*2))

	ginkgo.It("pods that aren't Ready, or are ending, are peers", func(ctx ginkgo.SpecContext) {
		w.start(ctx, member{name: "shop/server", node: near.Name, labels: server,
			serves: []string{"tcp/80"}}, member{name: "shop/stranger", node: near.Name})
		unready := w.client(ctx, "unready", far.Name, func(pod *corev1.Pod) {
			pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
				ProbeHandler: corev1.ProbeHandler{
					TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(1)}}}
		})
		ending := w.client(ctx, "ending", far.Name, func(pod *corev1.Pod) {
			pod.Spec.TerminationGracePeriodSeconds = new(int64(120))
		})
		w.apply(ctx, w.render(map[string]string{"shop/p": onlyFriends}))
		gomega.Expect(w.cluster.Client.CoreV1().Pods(ending.Namespace).
			Delete(ctx, ending.Name, metav1.DeleteOptions{})).To(gomega.Succeed())
		w.mayReach(ctx, "shop/server",
			map[string]bool{"shop/unready": true, "shop/ending": true, "shop/stranger": false})
		gomega.Expect(isReady(unready.Object(ctx))).To(gomega.BeFalse())
		gomega.Expect(ending.Object(ctx).DeletionTimestamp).NotTo(gomega.BeNil())
		gomega.Expect(w.cluster.Client.CoreV1().Pods(ending.Namespace).Delete(ctx, ending.Name,
			metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))})).To(gomega.Succeed())
	}, ginkgo.SpecTimeout(framework.PodPatience*2))
})

// Lines of the table that a cluster can't show.
var _ = ginkgo.Describe("meaning that is tested elsewhere", func() {
	for _, elsewhere := range []struct{ line, why string }{
		{"fragments follow their first",
			"it takes hand-made packets: TestFragments of controllers"},
		{"ICMP errors pass by who can know", "it takes hand-made packets: TestICMPErrorsPass and " +
			"TestForgedErrorsAreJudged of controllers"},
		{"what else is related, or INVALID", "it takes hand-made packets: " +
			"TestExpectationsDontPass and TestInvalidIsDropped of controllers"},
		{"TCP segments without SYN are denied with a reset",
			"it takes hand-made packets: TestDenialOfMidStreamTCPIsAReset of controllers"},
		{"a pod's start", "it is a suite of its own: start"},
		{"pods that are finished or were deleted by force", "they can't be told to connect: " +
			"TestFinishedOrForceDeletedPodKeepsItsPolicyUntilDetached of policy"},
		{"an address seen on two live pods",
			"a cluster in order has none: TestAddressOnTwoLivePods of policy"},
		{"a setting lets pods reach their node",
			"it takes other agents: TestPodToNodeSettingPackets of controllers"},
		{"additional networks and loopback aren't governed",
			"it takes another add-on: TestMultus of e2e/foreign"},
	} {
		ginkgo.It(elsewhere.line, func() { ginkgo.Skip(elsewhere.why) })
	}
})

// nodePort makes a Service for the server that keeps clients' addresses, and returns its port on
// nodes.
func (w *world) nodePort(ctx context.Context) int {
	families := corev1.IPFamilyPolicyPreferDualStack
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespaces["shop"], Name: "server"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort, IPFamilyPolicy: &families, Selector: server,
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
			Ports: []corev1.ServicePort{
				{Port: 80 + serviceOffset, TargetPort: intstr.FromInt32(80)}},
		},
	}
	w.cluster.Apply(ctx, service)
	return int(service.Spec.Ports[0].NodePort)
}

// client makes a friend that needn't be Ready, and waits until it can connect.
func (w *world) client(ctx context.Context, name, node string,
	mutate func(*corev1.Pod)) *framework.Pod {
	pod := w.cluster.CreatePod(ctx, w.namespaces["shop"], framework.PodOptions{
		Name: name, Node: node, Labels: friend, Args: []string{"serve", "--linger", "100s"},
		Mutate: mutate,
	})
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) corev1.PodPhase {
		return pod.Object(ctx).Status.Phase
	}).
		WithContext(ctx).WithTimeout(framework.PodPatience).
		Should(gomega.Equal(corev1.PodRunning), "phase of %s", pod)
	w.pods["shop/"+name] = pod
	return pod
}
