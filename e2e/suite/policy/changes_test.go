package policy

import (
	"context"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// Policies of the specs about changes.
const (
	onlyFriends = `{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]}`
	denyAll     = `{podSelector: {}, policyTypes: [Ingress, Egress]}`
)

var (
	server = map[string]string{"app": "server"}
	friend = map[string]string{"role": "friend"}
)

// Clients on the server's node and on another one, before and after each change that policy has to
// take notice of.
var _ = ginkgo.Describe("changes", func() {
	var w *world
	var near, far string // nodes: the server's, and another one if there is one

	ginkgo.BeforeEach(func(ctx ginkgo.SpecContext) {
		w = newWorld()
		workers := w.cluster.Workers(ctx)
		near, far = workers[0].Name, workers[len(workers)-1].Name
		w.namespace(ctx, "shop", map[string]string{"team": "shop"})
	})

	// clients makes two clients, one on each node.
	clients := func(ctx context.Context, name string, labels map[string]string) {
		w.start(ctx, member{name: "shop/" + name + "-near", node: near, labels: labels},
			member{name: "shop/" + name + "-far", node: far, labels: labels})
	}

	ginkgo.It("a policy created before its pods", func(ctx ginkgo.SpecContext) {
		w.apply(ctx, w.render(map[string]string{"shop/p": onlyFriends}))
		w.start(ctx,
			member{name: "shop/server", node: near, labels: server, serves: []string{"tcp/80"}})
		clients(ctx, "friend", friend)
		clients(ctx, "stranger", nil)
		w.mayReach(ctx, "shop/server", map[string]bool{
			"shop/friend-near": true, "shop/friend-far": true, "shop/stranger-near": false,
			"shop/stranger-far": false,
		})
	}, ginkgo.SpecTimeout(framework.PodPatience*2))

	ginkgo.It("a policy created, edited and deleted after its pods", func(ctx ginkgo.SpecContext) {
		w.start(ctx,
			member{name: "shop/server", node: near, labels: server, serves: []string{"tcp/80"}})
		clients(ctx, "friend", friend)
		clients(ctx, "stranger", nil)
		everybody := map[string]bool{
			"shop/friend-near": true, "shop/friend-far": true, "shop/stranger-near": true,
			"shop/stranger-far": true,
		}
		w.mayReach(ctx, "shop/server", everybody)
		w.apply(ctx, w.render(map[string]string{"shop/p": onlyFriends}))
		w.mayReach(ctx, "shop/server", map[string]bool{
			"shop/friend-near": true, "shop/friend-far": true, "shop/stranger-near": false,
			"shop/stranger-far": false,
		})
		ginkgo.By("editing it")
		w.apply(ctx, w.render(map[string]string{
			"shop/p": `{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: role, operator: DoesNotExist}]}}]}]}`,
		}))
		w.mayReach(ctx, "shop/server", map[string]bool{
			"shop/friend-near": false, "shop/friend-far": false, "shop/stranger-near": true,
			"shop/stranger-far": true,
		})
		ginkgo.By("deleting it")
		w.cluster.Remove(ctx, w.render(map[string]string{"shop/p": denyAll})[0])
		w.mayReach(ctx, "shop/server", everybody)
	}, ginkgo.SpecTimeout(framework.PodPatience*2))

	ginkgo.It("labels of running pods change", framework.Fast, func(ctx ginkgo.SpecContext) {
		w.start(ctx,
			member{name: "shop/server", node: near, labels: server, serves: []string{"tcp/80"}})
		clients(ctx, "client", nil)
		both := func(want bool) map[string]bool {
			return map[string]bool{"shop/client-near": want, "shop/client-far": want}
		}
		w.mayReach(ctx, "shop/server", both(true))
		w.apply(ctx, w.render(map[string]string{"shop/p": onlyFriends}))
		w.mayReach(ctx, "shop/server", both(false))
		for _, step := range []struct {
			pods  []string
			key   string
			value *string
			want  bool
		}{
			{[]string{"shop/client-near", "shop/client-far"}, "role", new("friend"), true},
			{[]string{"shop/client-near", "shop/client-far"}, "role", new("foe"), false},
			{[]string{"shop/client-near", "shop/client-far"}, "role", nil, false},
			{[]string{"shop/server"}, "app", nil, true},
			{[]string{"shop/server"}, "app", new("server"), false},
		} {
			for _, pod := range step.pods {
				w.label(ctx, pod, step.key, step.value)
			}
			w.mayReach(ctx, "shop/server", both(step.want))
		}
	}, ginkgo.SpecTimeout(framework.PodPatience*3))

	ginkgo.It("labels of a namespace change", func(ctx ginkgo.SpecContext) {
		w.namespace(ctx, "guests", nil)
		w.start(ctx,
			member{name: "shop/server", node: near, labels: server, serves: []string{"tcp/80"}},
			member{name: "guests/near", node: near}, member{name: "guests/far", node: far})
		both := func(want bool) map[string]bool {
			return map[string]bool{"guests/near": want, "guests/far": want}
		}
		w.mayReach(ctx, "shop/server", both(true))
		w.apply(ctx,
			w.render(
				map[string]string{
					"shop/p": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {guests: welcome}}}]}]}`}))
		w.mayReach(ctx, "shop/server", both(false))
		w.label(ctx, "guests", "guests", new("welcome"))
		w.mayReach(ctx, "shop/server", both(true))
		w.label(ctx, "guests", "guests", nil)
		w.mayReach(ctx, "shop/server", both(false))
	}, ginkgo.SpecTimeout(framework.PodPatience*2))

	ginkgo.It("pods deleted and made again under the same name", framework.Fast,
		func(ctx ginkgo.SpecContext) {
			w.apply(ctx, w.render(map[string]string{"shop/p": onlyFriends}))
			guarded := member{name: "shop/server-0", node: near, labels: server,
				serves: []string{"tcp/80"}}
			clientPods := func(labels map[string]string) []member {
				return []member{{name: "shop/client-0", node: near, labels: labels},
					{name: "shop/client-1", node: far, labels: labels}}
			}
			both := func(want bool) map[string]bool {
				return map[string]bool{"shop/client-0": want, "shop/client-1": want}
			}
			w.start(ctx, append(clientPods(friend), guarded)...)
			w.mayReach(ctx, "shop/server-0", both(true))
			ginkgo.By("clients that aren't friends take the names of those who were")
			w.again(ctx, clientPods(nil)...)
			w.mayReach(ctx, "shop/server-0", both(false))
			ginkgo.By("the server is made again: it is guarded as before")
			w.again(ctx, guarded)
			w.mayReach(ctx, "shop/server-0", both(false))
			ginkgo.By("friends take the names")
			w.again(ctx, clientPods(friend)...)
			w.mayReach(ctx, "shop/server-0", both(true))
			ginkgo.By("the server is made again: they may still reach it")
			w.again(ctx, guarded)
			w.mayReach(ctx, "shop/server-0", both(true))
		}, ginkgo.SpecTimeout(framework.PodPatience*4))

	ginkgo.It("kubelet's probes under a policy that denies everything",
		func(ctx ginkgo.SpecContext) {
			w.apply(ctx, w.render(map[string]string{"shop/p": denyAll}))
			ports := []string{"tcp/80"}
			w.start(ctx, member{name: "shop/near", node: near, serves: ports},
				member{name: "shop/far", node: far, serves: ports})
			live := w.cluster.Server(ctx, w.namespaces["shop"],
				framework.PodOptions{Name: "live", Node: far, Mutate: probeLiveness}, ports...)
			// the policy is in force
			w.mayReach(ctx, "shop/near", map[string]bool{"shop/far": false})
			gomega.Consistently(ctx, func(g gomega.Gomega, ctx context.Context) {
				list, err := w.cluster.Client.CoreV1().Pods(w.namespaces["shop"]).
					List(ctx, metav1.ListOptions{})
				g.Expect(err).NotTo(gomega.HaveOccurred())
				g.Expect(list.Items).To(gomega.HaveLen(3))
				for i := range list.Items {
					g.Expect(isReady(&list.Items[i])).
						To(gomega.BeTrue(), "readiness of %s", list.Items[i].Name)
				}
			}).WithContext(ctx).WithTimeout(probedFor).Should(gomega.Succeed())
			status := live.Object(ctx).Status.ContainerStatuses
			gomega.Expect(status).To(gomega.HaveLen(1))
			gomega.Expect(status[0].RestartCount).
				To(gomega.BeZero(), "restarts of a pod whose liveness is probed every second")
		}, ginkgo.SpecTimeout(framework.PodPatience*2))
})
