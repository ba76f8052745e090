package security

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
	"github.com/sluice-net/sluice/test/stretch"
)

// patience is how long what must happen may take on a busy machine.
var patience = stretch.By(time.Minute)

// world is a lab and the test that it is for.
type world struct {
	*lab.Lab
	t *testing.T
}

// newWorld starts a lab that ends with the test.
func newWorld(t *testing.T, options lab.Options) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	options.Name = fmt.Sprintf("s%d-%d", os.Getpid(), time.Now().UnixNano()%1_000_000)
	options.Progress = t.Output()
	l, err := lab.Up(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Lab: l, t: t}
	t.Cleanup(func() {
		if t.Failed() {
			w.dump()
		}
		if err := l.Down(); err != nil {
			t.Errorf("removing the lab: %v", err)
		}
	})
	return w
}

// dump logs what helps to find why a test failed.
func (w *world) dump() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, node := range w.Nodes() {
		listing, err := node.Nft(ctx, "list", "table", "inet", "sluice")
		w.t.Logf("%s (%v):\n%s\n%s", node.Name(), err, node.AgentLog(), listing)
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// pod says what a pod is like. It is in namespace default.
type pod struct {
	name, node  string
	app         string // a label
	ports       []corev1.ContainerPort
	annotations map[string]string
}

// place is the pod as the lab calls it.
func (p pod) place() string { return metav1.NamespaceDefault + "/" + p.name }

func (p pod) object() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault, Name: p.name,
			Labels: map[string]string{"app": p.app}, Annotations: p.annotations,
		},
		Spec: corev1.PodSpec{NodeName: p.node,
			Containers: []corev1.Container{{Name: "main", Image: "main", Ports: p.ports}}},
	}
}

// start starts pods and returns when they are ready.
func (w *world) start(pods ...pod) {
	w.t.Helper()
	var names []string
	for _, p := range pods {
		w.must(w.Client().Create(w.t.Context(), p.object()))
		names = append(names, p.place())
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*patience)
	defer cancel()
	w.must(w.WaitReady(ctx, names...))
}

// end deletes pods and returns when they are gone.
func (w *world) end(pods ...pod) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var names []string
	for _, p := range pods {
		w.must(w.Client().Delete(ctx, p.object(), client.GracePeriodSeconds(1)))
		names = append(names, p.place())
	}
	w.must(w.WaitGone(ctx, names...))
}

// policy applies a NetworkPolicy of namespace default.
func (w *world) policy(name, spec string) {
	w.t.Helper()
	w.must(w.Apply(w.t.Context(), policyManifest(name, spec)))
}

func policyManifest(name, spec string) string {
	return fmt.Sprintf(
		"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %s}, spec: %s}",
		name, spec)
}

// addr is the first address of a place, of a family (4 or 6).
func (w *world) addr(place string, family int) netip.Addr {
	w.t.Helper()
	var addrs []netip.Addr
	switch {
	case place == lab.Outside:
		addrs = w.OutsideAddrs()
	case slices.Contains(w.NodeNames(), place):
		addrs = w.NodeAddrs(place)
	default:
		p, err := w.Pod(place)
		w.must(err)
		addrs = p.Addresses
	}
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == (family == 4) })
	if i < 0 {
		w.t.Fatalf("%s has no IPv%d address", place, family)
	}
	return addrs[i]
}

func (w *world) at(place string, family int, port uint16) netip.AddrPort {
	w.t.Helper()
	return netip.AddrPortFrom(w.addr(place, family), port)
}

// sink counts the datagrams that arrive at a port of a place, until the test ends.
func (w *world) sink(place string, port uint16) *probe.Sink {
	w.t.Helper()
	var sink *probe.Sink
	w.must(w.Do(place, func() (err error) {
		sink, err = probe.NewSink(port)
		return err
	}))
	w.t.Cleanup(sink.Close)
	return sink
}

// send sends packets from a place, each as it is.
func (w *world) send(place string, packets ...[]byte) {
	w.t.Helper()
	w.must(w.Do(place, func() error {
		for _, packet := range packets {
			if err := probe.SendRaw(packet); err != nil {
				return err
			}
		}
		return nil
	}))
}

// eventually waits until the condition holds.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// reached demands that a connection works.
func (w *world) reached(from string, proto probe.Protocol, dst netip.AddrPort,
	opts ...probe.Option) probe.Result {
	w.t.Helper()
	r := w.Reach(w.t.Context(), from, proto, dst, append(opts, probe.Within(patience))...)
	if !r.OK {
		w.t.Errorf("%s to %s %s: %s", from, proto, dst, r)
	}
	return r
}

// stopped demands that a connection is dropped or reset, as soon as all nodes know that it should
// be.
func (w *world) stopped(from string, proto probe.Protocol, dst netip.AddrPort) {
	w.t.Helper()
	var r probe.Result
	w.eventually(fmt.Sprintf("%s to %s %s to be denied", from, proto, dst), func() bool {
		r = w.Connect(w.t.Context(), from, proto, dst)
		return lab.Cell{Result: r}.Denied()
	})
}

var countedPackets = regexp.MustCompile(`counter packets (\d+)`)

// dropped is how many packets a node's rules with this comment have dropped.
func (w *world) dropped(node, comment string) int {
	w.t.Helper()
	listing, err := w.Nft(w.t.Context(), node, "list", "table", "inet", "sluice")
	w.must(err)
	total, found := 0, false
	for line := range strings.SplitSeq(listing, "\n") {
		match := countedPackets.FindStringSubmatch(line)
		if match == nil || !strings.Contains(line, strconv.Quote(comment)) {
			continue
		}
		n, err := strconv.Atoi(match[1])
		w.must(err)
		total, found = total+n, true
	}
	if !found {
		w.t.Fatalf("%s has no rule %q", node, comment)
	}
	return total
}

// drops demands that a node's rules with this comment drop at least n packets while f runs, or soon
// after.
func (w *world) drops(node, comment string, n int, f func()) {
	w.t.Helper()
	before := w.dropped(node, comment)
	f()
	w.eventually(fmt.Sprintf("%d packets to be dropped as %q on %s", n, comment, node),
		func() bool {
			return w.dropped(node, comment) >= before+n
		})
}

var families = []int{4, 6}
