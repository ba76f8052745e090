package start

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
	"github.com/sluice-net/sluice/test/cases"
)

const (
	// servedPort is what is tried, over TCP and UDP. Kubelet's probes go to another, so that they
	// aren't counted.
	servedPort  = 80
	probedPorts = "tcp/8080"

	// batchLimit bounds how many pods of a worker run at the same time, and startLimit how long
	// they may take.
	batchLimit = 50
	startLimit = 5 * time.Minute
	// spare is how many pods and addresses of a worker are left to others.
	spare = 5
)

// The kinds of pods that start.
const (
	// its own policy lets it out to controls only; it tries the forbidden servers
	keptIn  = "kept-in"
	keptOut = "kept-out" // it has no policy; it tries the guarded servers
)

// world is the servers, on two workers, and the namespace of the pods that start.
type world struct {
	cluster    *framework.TheCluster
	workers    []corev1.Node
	namespaces map[string]string

	guarded   []*framework.Pod // let in friends only
	forbidden []*framework.Pod // let in anybody, but pods that are kept in don't get out to them
	control   []*framework.Pod // let in anybody
	friend    *framework.Pod   // tries them all
	stranger  *framework.Pod   // tries the guarded servers
	kept      *framework.Pod   // kept in; tries the forbidden servers
}

// newWorld makes the policies first, then the servers and the lasting clients.
func newWorld(ctx context.Context) *world {
	w := &world{cluster: framework.Cluster(), namespaces: map[string]string{}}
	w.workers = w.cluster.Workers(ctx)
	for _, name := range []string{"servers", "starts"} {
		w.namespaces[name] = w.cluster.Namespace(ctx, name, nil)
	}
	w.apply(ctx, "servers/guard",
		`{podSelector: {matchLabels: {role: guarded}}, ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]}`)
	w.apply(ctx, "starts/keep-in",
		fmt.Sprintf(`{podSelector: {matchLabels: {kind: %s}}, policyTypes: [Egress], egress: [
		{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}, podSelector: {matchLabels: {role: control}}}]}]}`,
			keptIn, w.namespaces["servers"]))

	type server struct {
		role string
		node string
		into *[]*framework.Pod
	}
	var servers []server
	for _, worker := range w.workers[:min(2, len(w.workers))] {
		for role, into := range map[string]*[]*framework.Pod{"guarded": &w.guarded,
			"forbidden": &w.forbidden, "control": &w.control} {
			servers = append(servers, server{role, worker.Name, into})
		}
	}
	var mu sync.Mutex
	together(servers, len(servers), func(s server) {
		pod := w.cluster.Server(ctx, w.namespaces["servers"], framework.PodOptions{
			Node: s.node, Labels: map[string]string{"role": s.role},
			Args: []string{"--report-peers", "--linger", "0s"},
		}, probedPorts, fmt.Sprintf("tcp/%d", servedPort), fmt.Sprintf("udp/%d", servedPort))
		mu.Lock()
		defer mu.Unlock()
		*s.into = append(*s.into, pod)
	})
	first := w.workers[0].Name
	w.friend = w.cluster.CreatePod(ctx, w.namespaces["servers"],
		framework.PodOptions{Name: "friend", Node: first,
			Labels: map[string]string{"role": "friend"}})
	w.stranger = w.cluster.CreatePod(ctx, w.namespaces["starts"],
		framework.PodOptions{Name: "stranger", Node: first})
	w.kept = w.cluster.CreatePod(ctx, w.namespaces["starts"],
		framework.PodOptions{Name: "kept", Node: first, Labels: map[string]string{"kind": keptIn}})
	w.cluster.WaitReady(ctx, w.friend, w.stranger, w.kept)
	return w
}

func (w *world) apply(ctx context.Context, key, spec string) {
	np, err := cases.RenderPolicy(key, spec, nil)
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
	np.Namespace = w.namespaces[np.Namespace]
	w.cluster.Apply(ctx, np)
}

// expectGuarded holds the servers to what they are for, with lasting pods.
func (w *world) expectGuarded(ctx context.Context) {
	guarded, forbidden, control := w.targets(w.guarded), w.targets(w.forbidden),
		w.targets(w.control)
	framework.ExpectReaches(ctx, w.friend, slices.Concat(guarded, forbidden, control)...)
	framework.ExpectRefused(ctx, w.stranger, guarded...)
	framework.ExpectReaches(ctx, w.stranger, control...)
	framework.ExpectRefused(ctx, w.kept, forbidden...)
	framework.ExpectReaches(ctx, w.kept, control...)
}

// targets are the servers' ports, in the given families or else in all.
func (w *world) targets(servers []*framework.Pod, families ...corev1.IPFamily) []string {
	if len(families) == 0 {
		families = w.cluster.Families
	}
	var out []string
	for _, server := range servers {
		for _, family := range families {
			for _, protocol := range []string{testprogram.TCP, testprogram.UDP} {
				out = append(out, framework.Target(protocol, server.Address(family), servedPort))
			}
		}
	}
	return out
}

// room is how many more pods every worker takes.
func (w *world) room(ctx context.Context) int {
	room := batchLimit
	for i := range w.workers {
		node := &w.workers[i]
		list, err := w.cluster.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{
			FieldSelector: fmt.Sprintf(
				"spec.nodeName=%s,status.phase!=Succeeded,status.phase!=Failed", node.Name),
		})
		gomega.ExpectWithOffset(1, err).
			NotTo(gomega.HaveOccurred(), "listing the pods of %s", node.Name)
		room = min(room, int(node.Status.Allocatable.Pods().Value())-len(list.Items)-spare)
		for _, text := range node.Spec.PodCIDRs {
			if block, err := netip.ParsePrefix(text); err == nil &&
				block.Addr().BitLen()-block.Bits() < 16 {
				room = min(room, 1<<(block.Addr().BitLen()-block.Bits())-len(list.Items)-spare)
			}
		}
	}
	return room
}

// startBatch creates pods on every worker, one half of each kind, each for the next family. Names
// go on from the given number.
func (w *world) startBatch(ctx context.Context, from, count int) []*framework.Pod {
	type one struct {
		number int
		node   string
	}
	var all []one
	for i := range count {
		for k := range w.workers {
			all = append(all, one{from + i, w.workers[k].Name})
		}
	}
	var mu sync.Mutex
	var pods []*framework.Pod
	together(all, 8, func(o one) {
		family := w.cluster.Families[o.number/2%len(w.cluster.Families)]
		kind, denied := keptIn, w.forbidden
		if o.number%2 == 1 {
			kind, denied = keptOut, w.guarded
		}
		args := []string{"first"}
		for _, target := range w.targets(denied, family) {
			args = append(args, "--denied", target)
		}
		for _, target := range w.targets(w.control, family) {
			if strings.HasPrefix(target, testprogram.TCP) {
				args = append(args, "--control", target)
			}
		}
		pod := w.cluster.CreatePod(ctx, w.namespaces["starts"], framework.PodOptions{
			Name: fmt.Sprintf("%s-%d-%s", kind, o.number, o.node), Node: o.node,
			Labels: map[string]string{"kind": kind, "starts": "yes"}, Args: args,
			Mutate: func(pod *corev1.Pod) {
				pod.Spec.RestartPolicy = corev1.RestartPolicyNever
				pod.Spec.TerminationGracePeriodSeconds = new(int64(1))
			},
		})
		mu.Lock()
		defer mu.Unlock()
		pods = append(pods, pod)
	})
	return pods
}

// awaitEnd waits until all pods of a batch have run.
func (w *world) awaitEnd(ctx context.Context, pods []*framework.Pod) {
	var waiting []string
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega, ctx context.Context) {
		list, err := w.cluster.Client.CoreV1().Pods(w.namespaces["starts"]).
			List(ctx, metav1.ListOptions{LabelSelector: "starts=yes"})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(list.Items).To(gomega.HaveLen(len(pods)), "pods of the batch")
		waiting = nil
		for i := range list.Items {
			switch pod := &list.Items[i]; pod.Status.Phase {
			case corev1.PodSucceeded, corev1.PodFailed:
			default:
				waiting = append(waiting, pod.Name+": "+string(pod.Status.Phase))
			}
		}
		g.Expect(waiting).To(gomega.BeEmpty(), "pods that haven't run to their end")
	}).WithContext(ctx).WithTimeout(startLimit).WithPolling(time.Second).Should(gomega.Succeed())
}

// remove deletes a batch.
func (w *world) remove(ctx context.Context, pods []*framework.Pod) {
	together(pods, 8, func(pod *framework.Pod) { pod.Delete(ctx) })
}

// arrivals are who came to a server that it must not get to, and how many that started came to
// controls.
func (w *world) arrivals(ctx context.Context) (wrong []string, controls int) {
	for _, server := range slices.Concat(w.guarded, w.forbidden) {
		for _, peer := range w.peers(ctx, server, w.friend) {
			wrong = append(wrong, fmt.Sprintf("%s: %s from %s at %s", server, peer.Protocol,
				peer.From, peer.At.Format(time.RFC3339Nano)))
		}
	}
	for _, server := range w.control {
		controls += len(w.peers(ctx, server, w.friend, w.stranger, w.kept))
	}
	return wrong, controls
}

// peers are a server's clients, but for some.
func (w *world) peers(ctx context.Context, server *framework.Pod,
	but ...*framework.Pod) (out []testprogram.Peer) {
	var addrs []netip.Addr
	for _, pod := range but {
		addrs = append(addrs, pod.Addresses()...)
	}
	for _, report := range testprogram.ReadLog(server.Logs(ctx)) {
		if report.Peer != nil && report.Peer.Port == servedPort &&
			!slices.Contains(addrs, report.Peer.From.Addr()) {
			out = append(out, *report.Peer)
		}
	}
	return out
}
