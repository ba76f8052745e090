package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// What the servers of this suite answer on.
const (
	port     = 80
	sctpPort = 9000
)

var ports = []string{fmt.Sprintf("tcp/%d", port), fmt.Sprintf("udp/%d", port),
	fmt.Sprintf("sctp/%d", sctpPort)}

// world is a namespace with pods on two workers.
type world struct {
	cluster       *framework.TheCluster
	namespace     string
	here, there   corev1.Node // two workers
	client        *framework.Pod
	server        *framework.Pod // on the client's node
	farClient     *framework.Pod
	farServer     *framework.Pod
	serversLabels map[string]string
	hosts         map[string]*framework.Pod // nil: not made yet
}

// newWorld makes a client and a server on each of two workers. It skips the spec on a cluster with
// one worker.
func newWorld(ctx context.Context, name string) *world {
	w := newNamespace(ctx, name)
	w.client = w.cluster.CreatePod(ctx, w.namespace,
		framework.PodOptions{Name: "client", Node: w.here.Name})
	w.farClient = w.cluster.CreatePod(ctx, w.namespace,
		framework.PodOptions{Name: "far-client", Node: w.there.Name})
	w.server = w.startServer(ctx, "server", w.here.Name)
	w.farServer = w.startServer(ctx, "far-server", w.there.Name)
	w.cluster.WaitReady(ctx, w.client, w.farClient, w.server, w.farServer)
	return w
}

// newNamespace is a world without pods.
func newNamespace(ctx context.Context, name string) *world {
	w := &world{cluster: framework.Cluster(), serversLabels: map[string]string{"app": "server"}}
	workers := w.cluster.Workers(ctx)
	if len(workers) < 2 {
		ginkgo.Skip(fmt.Sprintf("there is one worker (%s), these specs take two", workers[0].Name))
	}
	w.here, w.there = workers[0], workers[1]
	w.namespace = w.cluster.Namespace(ctx, name, nil)
	return w
}

// startServer creates a server on every port of the suite, and doesn't wait for it.
func (w *world) startServer(ctx context.Context, name, node string) *framework.Pod {
	args := []string{"serve", "--name", name, "--linger", "0s"}
	for _, port := range ports {
		args = append(args, "--serve", port)
	}
	labels := map[string]string{"name": name}
	maps.Copy(labels, w.serversLabels)
	return w.cluster.CreatePod(ctx, w.namespace,
		framework.PodOptions{Name: name, Node: node, Labels: labels, Args: args})
}

// hostPods are a pod in the network of each node, by the node's name. They serve nothing.
func (w *world) hostPods(ctx context.Context) map[string]*framework.Pod {
	if w.hosts != nil {
		return w.hosts
	}
	w.hosts = map[string]*framework.Pod{}
	var all []*framework.Pod
	for _, node := range w.cluster.Nodes(ctx) {
		pod := w.cluster.CreatePod(ctx, w.namespace,
			framework.PodOptions{Name: "host-" + node.Name, Node: node.Name, HostNetwork: true})
		w.hosts[node.Name] = pod
		all = append(all, pod)
	}
	w.cluster.WaitReady(ctx, all...)
	return w.hosts
}

// everyWay are the targets of a server in every protocol but SCTP, at each of the addresses.
func everyWay(addrs ...netip.Addr) []string {
	var targets []string
	for _, addr := range addrs {
		for _, protocol := range []string{testprogram.TCP, testprogram.UDP, testprogram.ICMP} {
			targets = append(targets, framework.Target(protocol, addr, port))
		}
	}
	return targets
}

// expectAnswers tries until all targets answer in one attempt. Each answer must come from a server
// whose name is as it must be, and who saw a client as it must be (a netip.Addr); anything else
// fails at once, as nothing could put it right. It returns the names.
func expectAnswers(ctx context.Context, from framework.Source, server, client types.GomegaMatcher,
	targets ...string) []string {
	gomega.ExpectWithOffset(1, targets).NotTo(gomega.BeEmpty(), "targets for %s", from)
	var names []string
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) error {
		results, err := from.TryConnect(ctx, targets...)
		if err != nil {
			return err
		}
		names = nil
		var silent []string
		for _, result := range results {
			if !result.OK {
				silent = append(silent, result.String())
				continue
			}
			name, seen, isServer := readReply(result)
			if !isServer {
				continue // ICMP's answer doesn't say whom it saw
			}
			if err := match(result, server, name, client, seen); err != nil {
				return gomega.StopTrying("the answer is wrong").Wrap(err)
			}
			names = append(names, name)
		}
		if len(silent) > 0 {
			return fmt.Errorf("%d of %d didn't answer:\n  %s", len(silent), len(targets),
				strings.Join(silent, "\n  "))
		}
		return nil
	}).WithContext(ctx).Should(gomega.Succeed(), "from %s", from)
	return names
}

// readReply takes a server's answer apart. ICMP's is not one.
func readReply(result testprogram.Result) (server string, client netip.Addr, ok bool) {
	name, seen, _ := strings.Cut(result.Reply, " ")
	addr, err := netip.ParseAddrPort(seen)
	return name, addr.Addr(), err == nil
}

func match(result testprogram.Result, server types.GomegaMatcher, name string,
	client types.GomegaMatcher, seen netip.Addr) error {
	if ok, err := server.Match(name); err != nil || !ok {
		return errors.Join(fmt.Errorf("%s: the server: %s", result,
			server.FailureMessage(name)), err)
	}
	if ok, err := client.Match(seen); err != nil || !ok {
		return errors.Join(fmt.Errorf("%s: the client that the server saw: %s", result,
			client.FailureMessage(seen)), err)
	}
	return nil
}

// expectFailure tries until all targets fail in this way in one attempt.
func expectFailure(ctx context.Context, from framework.Source, kind testprogram.Kind,
	targets ...string) {
	gomega.ExpectWithOffset(1, targets).NotTo(gomega.BeEmpty(), "targets for %s", from)
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) error {
		results, err := from.TryConnect(ctx, targets...)
		var others []string
		for _, result := range results {
			if result.Kind != kind {
				others = append(others, result.String())
			}
		}
		if err == nil && len(others) > 0 {
			err = fmt.Errorf("not %q:\n  %s", kind, strings.Join(others, "\n  "))
		}
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "from %s", from)
}

// by is a server of this name.
func by(names ...string) types.GomegaMatcher { return gomega.BeElementOf(names) }

// as is a client with one of these addresses. There may be more than one: of several families.
func as(addrs ...netip.Addr) types.GomegaMatcher { return gomega.BeElementOf(addrs) }

// asAnyone is any client.
func asAnyone() types.GomegaMatcher { return gomega.Not(gomega.BeZero()) }

// nodeOf is the node of the world's own pods.
func (w *world) nodeOf(pod *framework.Pod) *corev1.Node {
	if pod == w.client || pod == w.server {
		return &w.here
	}
	return &w.there
}

// addressesOf are a node's addresses of the cluster's families.
func (w *world) addressesOf(node *corev1.Node) []netip.Addr {
	return slices.DeleteFunc(framework.NodeAddresses(node), func(addr netip.Addr) bool {
		return !slices.Contains(w.cluster.Families, framework.FamilyOf(addr))
	})
}

// somePort is a port that is probably free on a node: outside of what NodePorts and the kernel's
// own choices are taken from. These specs may run beside themselves.
func somePort() int { return 20_000 + rand.IntN(9_000) }
