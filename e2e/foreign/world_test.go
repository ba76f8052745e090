package foreign

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
	"github.com/sluice-net/sluice/test/stretch"
)

// world is a lab whose pods other plugins wire.
type world struct {
	*lab.Lab
	t         *testing.T
	strangers map[string]*stranger
	served    map[string][]netip.Addr // what Services have, by the names that tests give them
}

// newWorld starts a lab with a node for each wiring, on which agents run with --policy-only and
// these arguments.
func newWorld(t *testing.T, name string, args []string, wirings ...wiring) *world {
	t.Helper()
	w := newLab(t, name, lab.Options{Nodes: len(wirings), NoAgent: true,
		AgentArgs: append([]string{"--policy-only"}, args...)})
	for i, node := range w.Nodes() {
		install(t, node, wirings[i].conflist(node))
		must(t, node.StartAgent())
	}
	for i, node := range w.Nodes() {
		must(t, node.WaitAgentReady(t.Context()))
		t.Logf("%s: pods are wired by %s", node.Name(), wirings[i])
	}
	return w
}

func newLab(t *testing.T, name string, options lab.Options) *world {
	t.Helper()
	needRoot(t)
	options.Name, options.Progress = labName(name), t.Output()
	l, err := lab.Up(t.Context(), options)
	must(t, err)
	w := inLab(t, l)
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

func inLab(t *testing.T, l *lab.Lab) *world {
	t.Helper()
	return &world{Lab: l, t: t, strangers: map[string]*stranger{},
		served: map[string][]netip.Addr{service: serviceAddrs}}
}

// dump logs what helps to find why a test failed.
func (w *world) dump() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, node := range w.Nodes() {
		w.t.Logf("agent of %s:\n%s", node.Name(), node.AgentLog())
		listing, err := node.Nft(ctx, "list", "table", "inet", "sluice")
		w.t.Logf("table of %s: %v\n%s", node.Name(), err, listing)
	}
}

// namespaces creates namespaces.
func (w *world) namespaces(names ...string) {
	w.t.Helper()
	for _, name := range names {
		must(w.t, w.Client().Create(w.t.Context(),
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
}

// pod is a pod that serves TCP 80 and 81, and UDP 53.
func pod(name, node string, labels, annotations map[string]string) *corev1.Pod {
	namespace, short := split(name)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: short, Labels: labels,
			Annotations: annotations},
		Spec: corev1.PodSpec{NodeName: node,
			Containers: []corev1.Container{
				{Name: "main", Image: "none", Ports: []corev1.ContainerPort{
					{ContainerPort: 80}, {ContainerPort: 81},
					{ContainerPort: 53, Protocol: corev1.ProtocolUDP},
				}}}},
	}
}

func (w *world) create(pods ...*corev1.Pod) {
	w.t.Helper()
	var names []string
	for _, p := range pods {
		must(w.t, w.Client().Create(w.t.Context(), p))
		names = append(names, p.Namespace+"/"+p.Name)
	}
	must(w.t, w.WaitReady(w.t.Context(), names...))
}

// deletePods deletes pods and waits until they are gone.
func (w *world) deletePods(names ...string) {
	w.t.Helper()
	for _, name := range names {
		must(w.t,
			w.Client().Delete(w.t.Context(), pod(name, "", nil, nil), client.GracePeriodSeconds(1)))
	}
	must(w.t, w.WaitGone(w.t.Context(), names...))
}

func (w *world) apply(manifests string) {
	w.t.Helper()
	must(w.t, w.Apply(w.t.Context(), manifests))
}

// flow is a connection between two places, tried over every family.
type flow struct {
	from, to string // places, or an address of neither
	protocol probe.Protocol
	port     uint16
}

func tcp(from, to string, port uint16) flow { return flow{from, to, probe.TCP, port} }

// addrs returns the addresses of a place.
func (w *world) addrs(place string) []netip.Addr {
	w.t.Helper()
	switch {
	case place == lab.Outside:
		return w.OutsideAddrs()
	case len(w.NodeAddrs(place)) > 0:
		return w.NodeAddrs(place)
	case w.served[place] != nil:
		return w.served[place]
	case w.strangers[place] != nil:
		return w.strangers[place].addrs
	}
	p, err := w.Pod(place)
	must(w.t, err)
	return p.Addresses
}

// addr returns the first address of a place of one family.
func (w *world) addr(place string, is4 bool) netip.Addr {
	w.t.Helper()
	for _, a := range w.addrs(place) {
		if a.Is4() == is4 {
			return a
		}
	}
	w.t.Fatalf("%s has no address with is4 %v", place, is4)
	return netip.Addr{}
}

// settleTime is how long a change may take until it is in force on a busy machine.
var settleTime = stretch.By(time.Minute)

// expect waits until each flow connects, or doesn't, and then holds what is denied to it once more.
func (w *world) expect(connects bool, flows ...flow) {
	w.t.Helper()
	again := []bool{false}
	if !connects {
		again = append(again, true)
	}
	for _, isAgain := range again {
		var all sync.WaitGroup
		for _, f := range flows {
			for _, is4 := range []bool{true, false} {
				dst := netip.AddrPortFrom(w.addr(f.to, is4), f.port)
				all.Go(func() { w.expectOne(f, dst, connects, isAgain) })
			}
		}
		all.Wait()
	}
}

// expectOne tries until the flow is as it must be. One that gets in just before a policy is in
// force is cut: it wasn't denied yet.
func (w *world) expectOne(f flow, dst netip.AddrPort, connects, isAgain bool) {
	var r probe.Result
	asWanted := func() bool { return r.OK == connects && (r.OK || (lab.Cell{Result: r}).Denied()) }
	tick := time.NewTicker(stretch.By(20 * time.Millisecond))
	defer tick.Stop()
	for deadline := time.Now().Add(settleTime); time.Now().Before(deadline); <-tick.C {
		r = w.connect(f.from, f.protocol, dst)
		if asWanted() || isAgain {
			break
		}
	}
	if !asWanted() {
		w.t.Errorf("%s -> %s %s %s: got %s, want connect %v (after it was denied: %v)", f.from,
			f.to, f.protocol, dst, r, connects, isAgain)
	}
}

func (w *world) allowed(flows ...flow) {
	w.t.Helper()
	w.expect(true, flows...)
}

func (w *world) denied(flows ...flow) {
	w.t.Helper()
	w.expect(false, flows...)
}

// eventually waits until the condition holds.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	tick := time.NewTicker(stretch.By(50 * time.Millisecond))
	defer tick.Stop()
	for deadline := time.Now().Add(settleTime); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited %v for %s", settleTime, what)
		}
	}
}

// on names a pod by its node: every node has one of each.
func on(node *lab.Node, name string) string { return fmt.Sprintf("%s-%s", name, node.Name()) }

// kubeconfigOn writes, for a program on a node, the administrator's access to the API server.
func (w *world) kubeconfigOn(node *lab.Node, program string) string {
	w.t.Helper()
	access, err := clientcmd.LoadFromFile(w.Kubeconfig())
	must(w.t, err)
	for _, cluster := range access.Clusters {
		cluster.Server = "https://127.0.0.1:6443" // the node's way to the API server
	}
	path := filepath.Join(node.Dir(), program+".kubeconfig")
	must(w.t, clientcmd.WriteToFile(*access, path))
	return path
}
