package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

const (
	tcpPort = 80 // of every pod
	udpPort = 53

	tunnel = "sluice.1" // the tunnel device
	uplink = "eth0"     // of nodes

	// settleTime is how long a change may take until it is in force on a busy machine, where a test
	// isn't about how long it takes.
	settleTime = time.Minute
)

// world is a lab, for a test or a part of one.
type world struct {
	*lab.Lab
	t *testing.T
}

func newWorld(t *testing.T, name string, options lab.Options) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	options.Name, options.Progress = fmt.Sprintf("%s-%d", name, os.Getpid()), t.Output()
	l, err := lab.Up(t.Context(), options)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, node := range l.Nodes() {
				t.Logf("agent of %s:\n%s", node.Name(), node.AgentLog())
			}
		}
		if err := l.Down(); err != nil {
			t.Errorf("removing the lab: %v", err)
		}
	})
	return &world{Lab: l, t: t}
}

// part runs a part of a test, which takes its turn on the lab.
func (w *world) part(name string, test func(w *world)) {
	w.t.Run(name, func(t *testing.T) { test(&world{Lab: w.Lab, t: t}) })
}

// run starts pods on a node, in the namespace default, and waits until they are ready.
func (w *world) run(node string, pods ...string) {
	w.t.Helper()
	w.create(node, pods...)
	w.waitReady(pods...)
}

// create creates pods on a node that serve tcpPort and udpPort.
func (w *world) create(node string, pods ...string) {
	w.t.Helper()
	for _, name := range pods {
		pod := podObject(name)
		pod.Spec = corev1.PodSpec{NodeName: node,
			Containers: []corev1.Container{
				{Name: "main", Image: "none", Ports: []corev1.ContainerPort{
					{ContainerPort: tcpPort},
					{ContainerPort: udpPort, Protocol: corev1.ProtocolUDP},
				}}}}
		must(w.t, w.Client().Create(w.t.Context(), pod))
	}
}

func podObject(name string) *corev1.Pod {
	namespace, short, _ := strings.Cut(name, "/")
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: short,
		Labels: map[string]string{"name": short}}}
}

func (w *world) waitReady(pods ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*settleTime)
	defer cancel()
	must(w.t, w.WaitReady(ctx, pods...))
}

func (w *world) pod(name string) lab.Pod {
	w.t.Helper()
	pod, err := w.Pod(name)
	must(w.t, err)
	return pod
}

// addrs returns the addresses of a pod, a node, or the outside host: of each family the first.
func (w *world) addrs(place string) []netip.Addr {
	w.t.Helper()
	switch {
	case place == lab.Outside:
		var firsts []netip.Addr
		for _, addr := range w.OutsideAddrs() {
			if !of(firsts, addr).IsValid() {
				firsts = append(firsts, addr)
			}
		}
		return firsts
	case strings.Contains(place, "/"):
		return w.pod(place).Addresses
	}
	return w.NodeAddrs(place)
}

// of returns the one of addrs that is of the family of like, or the zero Addr.
func of(addrs []netip.Addr, like netip.Addr) netip.Addr {
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == like.Is4() })
	if i >= 0 {
		return addrs[i]
	}
	return netip.Addr{}
}

// tunnelAddr returns a node's address in the tunnel: the first of its pods' range.
func (w *world) tunnelAddr(node string, like netip.Addr) netip.Addr {
	w.t.Helper()
	var addrs []netip.Addr
	for _, cidr := range w.Node(node).PodCIDRs() {
		addrs = append(addrs, cidr.Addr())
	}
	return of(addrs, like)
}

// talks demands that a pod reaches another over every protocol and family, and is seen with its own
// address.
func (w *world) talks(from, to string) {
	w.t.Helper()
	for _, dst := range w.addrs(to) {
		w.reaches(from, probe.TCP, at(dst, tcpPort), of(w.addrs(from), dst))
		w.reaches(from, probe.UDP, at(dst, udpPort), of(w.addrs(from), dst))
		if r := w.Reach(w.t.Context(), from, probe.ICMP, at(dst, 0)); !r.OK {
			w.t.Errorf("%s -> %s ICMP: %s", from, dst, r)
		}
	}
}

// talk demands the same both ways.
func (w *world) talk(a, b string) {
	w.t.Helper()
	w.talks(a, b)
	w.talks(b, a)
}

// reaches demands that a place connects, and is seen with this address.
func (w *world) reaches(from string, protocol probe.Protocol, dst netip.AddrPort, seen netip.Addr) {
	w.t.Helper()
	r := w.Reach(w.t.Context(), from, protocol, dst)
	if source := sourceIn(r); !r.OK || source != seen {
		w.t.Errorf("%s -> %s %s: %s, want an answer to %s", from, dst, protocol, r, seen)
	}
}

// sourceIn is the address that a server saw, by its answer.
func sourceIn(r probe.Result) netip.Addr {
	_, rest, _ := strings.Cut(r.Reply, " ")
	text, _, _ := strings.Cut(rest, " ")
	source, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.Addr{}
	}
	return source.Addr()
}

// at is a port of an address.
func at(addr netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }

// connects tries once over TCP.
func (w *world) connects(from string, dst netip.AddrPort) bool {
	w.t.Helper()
	return w.Connect(w.t.Context(), from, probe.TCP, dst).OK
}

// eventually waits until a condition holds, for so long, and returns after how long it did.
func (w *world) eventually(within time.Duration, what string, holds func() bool) time.Duration {
	w.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; <-tick.C {
		held := holds()
		took := time.Since(start)
		if held {
			return took
		}
		if took > within {
			w.t.Fatalf("waited %s for %s", took.Round(time.Millisecond), what)
		}
	}
}

// sh runs a shell's command line in a place and returns what it printed.
func (w *world) sh(place, line string) string {
	w.t.Helper()
	// the latter also has what ip says of other labs' namespaces that come and go
	var stdout, stderr strings.Builder
	must(w.t, w.Do(place, func() error {
		cmd := exec.CommandContext(w.t.Context(), "sh", "-ec", line)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s in %s: %w: %s", line, place, err, &stderr)
		}
		return nil
	}))
	return stdout.String()
}

// linkMTU returns the MTU of a link of a place, 0 if there is none.
func (w *world) linkMTU(place, link string) (mtu int) {
	w.t.Helper()
	must(w.t, w.Do(place, func() error {
		if device, err := net.InterfaceByName(link); err == nil {
			mtu = device.MTU
		}
		return nil
	}))
	return mtu
}

// event waits for a warning about a node that holds a text, and returns it.
func (w *world) event(node, reason, text string) (note string) {
	w.t.Helper()
	w.eventually(settleTime, "event "+reason+" on "+node+" about "+text, func() bool {
		for _, found := range w.events(node, reason) {
			if strings.Contains(found, text) {
				note = found
				return true
			}
		}
		return false
	})
	return note
}

// events returns the notes of the events about a node with this reason.
func (w *world) events(node, reason string) (notes []string) {
	w.t.Helper()
	var list eventsv1.EventList
	must(w.t, w.Client().List(w.t.Context(), &list))
	for _, e := range list.Items {
		if e.Regarding.Kind == "Node" && e.Regarding.Name == node && e.Reason == reason {
			notes = append(notes, e.Note)
		}
	}
	return notes
}

// annotate sets an annotation of a node, or with nil removes it.
func (w *world) annotate(node, annotation string, value *string) {
	w.t.Helper()
	text := "null"
	if value != nil {
		text = fmt.Sprintf("%q", *value)
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, annotation, text)
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	must(w.t, w.Client().Patch(w.t.Context(), object,
		client.RawPatch("application/merge-patch+json", []byte(patch))))
}
