package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
	"github.com/sluice-net/sluice/test/cases"
)

// world is pods, and hosts that aren't pods, under short names.
type world struct {
	cluster    *framework.TheCluster
	namespaces map[string]string // short name to the name in the cluster
	pods       map[string]*framework.Pod
	hosts      map[string]host
}

// host is an end of connections that is no pod of the pod network.
type host struct {
	source    source
	answers   string // its name in answers
	addresses []netip.Addr
}

func newWorld() *world {
	return &world{
		cluster: framework.Cluster(), namespaces: map[string]string{},
		pods: map[string]*framework.Pod{}, hosts: map[string]host{},
	}
}

// namespace makes a namespace under a short name.
func (w *world) namespace(ctx context.Context, short string, labels map[string]string) {
	w.namespaces[short] = w.cluster.Namespace(ctx, short, labels)
}

// member is a pod of a world to be: "namespace/name", short.
type member struct {
	name, node    string
	labels        map[string]string
	ports         []corev1.ContainerPort // named ones
	serves        []string               // "tcp/80"
	inHostNetwork bool
}

// start makes pods, all at once, and waits until they are Ready. Each answers with its name in the
// world.
func (w *world) start(ctx context.Context, members ...member) {
	var mu sync.Mutex
	together(members, func(m member) {
		namespace, name := split(m.name)
		pod := w.cluster.Server(ctx, w.namespaces[namespace], framework.PodOptions{
			Name: name, Node: m.node, Labels: m.labels, Ports: m.ports,
			HostNetwork: m.inHostNetwork,
			Args:        []string{"--name", m.name, "--linger", "0s"},
		}, m.serves...)
		mu.Lock()
		defer mu.Unlock()
		if m.inHostNetwork {
			w.hosts[m.name] = host{source: pod, answers: m.name, addresses: pod.Addresses()}
		} else {
			w.pods[m.name] = pod
		}
	})
}

// together does something for all at the same time.
func together[T any](all []T, do func(T)) {
	var group sync.WaitGroup
	var done atomic.Int32
	for _, one := range all {
		group.Go(func() {
			defer ginkgo.GinkgoRecover()
			do(one)
			done.Add(1)
		})
	}
	group.Wait()
	gomega.ExpectWithOffset(1, int(done.Load())).
		To(gomega.Equal(len(all)), "how many of all that were begun at once succeeded")
}

// addresses are an end's.
func (w *world) addresses(name string) []netip.Addr {
	if h, ok := w.hosts[name]; ok {
		return h.addresses
	}
	gomega.ExpectWithOffset(1, w.pods).To(gomega.HaveKey(name), "ends of connections")
	return w.pods[name].Addresses()
}

// cell is a connection between two ends of the world; false, if one has no address of the family.
func (w *world) cell(from, to, protocol string, port int, family corev1.IPFamily) (*cell, bool) {
	c := &cell{from: from, to: to, answer: to, protocol: protocol, port: port, family: family}
	c.dest = framework.OfFamily(w.addresses(to), family)
	src := framework.OfFamily(w.addresses(from), family)
	if h, ok := w.hosts[to]; ok {
		c.answer = h.answers
	}
	if w.pods[from] != nil && w.pods[to] != nil {
		c.source = src
	}
	return c, c.dest.IsValid() && src.IsValid()
}

// fill tries each cell once.
func (w *world) fill(ctx context.Context, cells []*cell) error {
	groups := bySource(cells)
	errs := make([]error, len(groups))
	var group sync.WaitGroup
	for i, mine := range groups {
		from := w.source(mine[0].from)
		group.Go(func() {
			targets := make([]string, len(mine))
			for k, c := range mine {
				targets[k] = c.target()
			}
			results, err := from.TryConnect(ctx, targets...)
			if err != nil {
				errs[i] = err
				return
			}
			for k, c := range mine {
				c.got = results[k]
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func (w *world) source(name string) source {
	if h, ok := w.hosts[name]; ok {
		return h.source
	}
	return w.pods[name]
}

// expect tries the cells until all are as they must be, and fails the spec with a table of those
// that aren't. What connects although it must not has every cell tried anew: the policies may not
// be in force yet. What doesn't connect although it must is tried alone: a busy machine isn't a
// denial.
func (w *world) expect(ctx context.Context, cells []*cell) {
	round := cells
	var wrong []*cell
	began, rounds := time.Now(), 0
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) bool {
		rounds++
		for _, c := range round {
			c.got.Target = ""
		}
		err := w.fill(ctx, round)
		if err != nil {
			ginkgo.GinkgoLogr.Error(err, "connecting from some pods")
		}
		wrong = mismatches(round)
		if leaks := func(c *cell) bool { return !c.want }; slices.ContainsFunc(wrong, leaks) {
			round = cells
		} else {
			round = wrong
		}
		return len(wrong) == 0
	}).WithContext(ctx).Should(gomega.BeTrue(), func() string {
		return fmt.Sprintf("%d of %d connections aren't as they must be:\n%s", len(wrong),
			len(cells), table(wrong))
	})
	ginkgo.GinkgoLogr.Info("connections are as they must be", "connections", len(cells), "rounds",
		rounds, "took", time.Since(began).String())
}

// all holds every cell to the same verdict.
func all(cells []*cell, want bool) []*cell {
	for _, c := range cells {
		c.want = want
	}
	return cells
}

// nowhere has, for each family, an address (of those for documentation) that stands for one that an
// end doesn't have.
var nowhere = map[corev1.IPFamily]string{corev1.IPv4Protocol: "192.0.2.1",
	corev1.IPv6Protocol: "2001:db8::1"}

// render makes policies of their specs by namespace/name, in the world's namespaces and with its
// addresses.
func (w *world) render(specs map[string]string) []*networkingv1.NetworkPolicy {
	return w.renderWith(specs, w.template)
}

func (w *world) renderWith(specs map[string]string,
	template func(name string, family int) string) []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for _, key := range slices.Sorted(maps.Keys(specs)) {
		np, err := cases.RenderPolicy(key, specs[key], template)
		gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
		np.Namespace = w.namespaces[np.Namespace]
		out = append(out, np)
	}
	return out
}

// template is what a template's ip4 and ip6 stand for: an end's address, or, for "pods", a block
// with the addresses of all pods.
func (w *world) template(name string, number int) string {
	family := corev1.IPv4Protocol
	if number == 6 {
		family = corev1.IPv6Protocol
	}
	if name == "pods" {
		return w.podBlock(family).String()
	}
	if addr := framework.OfFamily(w.addresses(name), family); addr.IsValid() {
		return addr.String()
	}
	return nowhere[family]
}

// podBlock is the smallest block with the addresses of all pods.
func (w *world) podBlock(family corev1.IPFamily) netip.Prefix {
	var addrs []netip.Addr
	for _, pod := range w.pods {
		if addr := framework.OfFamily(pod.Addresses(), family); addr.IsValid() {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		none := netip.MustParseAddr(nowhere[family])
		return netip.PrefixFrom(none, none.BitLen()-8).Masked()
	}
	return cover(addrs)
}

// cover is the smallest block that holds all addresses, which are of one family.
func cover(addrs []netip.Addr) netip.Prefix {
	block := netip.PrefixFrom(addrs[0], addrs[0].BitLen())
	for slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !block.Contains(a) }) {
		block = netip.PrefixFrom(block.Addr(), block.Bits()-1).Masked()
	}
	return block
}

// apply applies policies; they are deleted after the spec.
func (w *world) apply(ctx context.Context, policies []*networkingv1.NetworkPolicy) {
	for _, np := range policies {
		w.cluster.Apply(ctx, np)
	}
}

// split takes "namespace/name" apart.
func split(name string) (namespace, short string) {
	namespace, short, _ = strings.Cut(name, "/")
	return namespace, short
}

// sctpFails says why SCTP can't be tried in this cluster, or "".
func (w *world) sctpFails(ctx context.Context, port int) string {
	for _, pod := range w.pods {
		for _, result := range pod.Connect(ctx, pod.Targets(testprogram.SCTP, port)...) {
			if result.Kind == testprogram.Unsupported {
				return result.Error
			}
		}
	}
	return ""
}
