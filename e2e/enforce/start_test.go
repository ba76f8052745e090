package enforce

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
	"github.com/sluice-net/sluice/test/stretch"
)

// Ports of the start test: denied pods try one, their controls another, so that the receiver can
// distinguish what arrives.
const (
	deniedPort  = 81
	controlPort = 80
)

// startPods is how many denied pods of each kind start.
func startPods() int {
	switch {
	case os.Getenv("SLUICE_LONG") != "":
		return 1000
	case stretch.Factor() > 1:
		return 12 // emulated, a pod takes seconds to start
	}
	return 80
}

// startsAtOnce bounds how many pods are starting at any time.
var startsAtOnce = stretch.Fewer(40)

// starts is a world of pods that start.
type starts struct {
	world
	late atomic.Int32 // controls that connected after their first second
}

// TestStarts: the first instruction of a pod connects, mostly to a pod of another node. 80 pods may
// not get out, 80 may not get in; beside each, a pod of an open namespace may. Agents are killed
// and policies change meanwhile. Not one packet of the former arrives, and every one of the latter
// connects.
func TestStarts(t *testing.T) {
	nodes := 4
	if stretch.Factor() > 1 {
		nodes = 2
	}
	l := newLab(t, labName(t, "starts"), lab.Options{Nodes: nodes})
	w := &starts{world: world{Lab: l, t: t, node: map[string]string{}}}
	for _, name := range []string{"open", "shut", "server"} {
		w.must(l.Client().Create(t.Context(),
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	w.setPolicies(map[string]string{
		"shut/no-egress":     `{podSelector: {matchLabels: {may-not: leave}}, policyTypes: [Egress]}`,
		"server/no-entrance": `{podSelector: {matchLabels: {guard: "yes"}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: open}}}]}]}`,
	})
	w.receiver("unguarded", nil)
	w.receiver("guarded", map[string]string{"guard": "yes"})

	storm, calm := w.storm()

	type kind struct{ target, label string }
	var all sync.WaitGroup
	slots := make(chan struct{}, startsAtOnce)
	for _, k := range []kind{{"server/unguarded", "leave"}, {"server/guarded", "enter"}} {
		for i := range startPods() {
			family := 4 + i/nodes%2*2
			node := fmt.Sprintf("node%d", i%nodes+1)
			for _, p := range []struct {
				namespace string
				port      uint16
				connects  bool
			}{{"shut", deniedPort, false}, {"open", controlPort, true}} {
				target := addrPort(w.addr(k.target, "", family), p.port)
				pod := latePod(fmt.Sprintf("%s-%d", k.label, i), node,
					fmt.Sprintf("tcp://%s", target))
				pod.Namespace, pod.Labels = p.namespace, map[string]string{"may-not": k.label}
				all.Go(func() {
					slots <- struct{}{}
					defer func() { <-slots }()
					w.startOne(pod, target, p.connects)
				})
			}
		}
	}
	all.Wait()
	calm()
	storm.report()
	t.Logf(
		"%d of %d controls took more than their first second to be let in",
		w.late.Load(), startPods())
	for _, target := range []string{"server/unguarded", "server/guarded"} {
		denied, control := w.arrived(target, deniedPort), w.arrived(target, controlPort)
		t.Logf("proof: %s: %d packets of %d denied pods arrived, %d of %d controls", target, denied,
			startPods(), control, startPods())
		if denied != 0 || control < startPods() {
			t.Errorf("%s: %d denied packets arrived, %d of the controls", target, denied, control)
		}
	}
}

// receiver starts a pod that counts the connections it is sent.
func (w *starts) receiver(name string, labels map[string]string) {
	w.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "server", Name: name, Labels: labels},
		Spec: corev1.PodSpec{NodeName: "node1",
			Containers: []corev1.Container{
				{Name: "main", Image: "main", Ports: []corev1.ContainerPort{
					{ContainerPort: controlPort}, {ContainerPort: deniedPort},
				}}}},
	}
	w.must(w.Client().Create(w.t.Context(), pod))
	full := "server/" + name
	w.must(w.WaitReady(w.t.Context(), full))
	for _, args := range [][]string{
		{"add", "table", "inet", "count"},
		{"add", "chain", "inet", "count", "in", "{ type filter hook prerouting priority -300; }"},
		{"add", "rule", "inet", "count", "in",
			fmt.Sprintf("tcp dport %d tcp flags & (syn|ack) == syn counter", deniedPort)},
		{"add", "rule", "inet", "count", "in",
			fmt.Sprintf("tcp dport %d tcp flags & (syn|ack) == syn counter", controlPort)},
	} {
		_, err := w.Nft(w.t.Context(), full, args...)
		w.must(err)
	}
}

// arrived returns how many first packets to a port a receiver got.
func (w *starts) arrived(receiver string, port int) int {
	w.t.Helper()
	listing, err := w.Nft(w.t.Context(), receiver, "list", "table", "inet", "count")
	w.must(err)
	for line := range strings.SplitSeq(listing, "\n") {
		if !strings.Contains(line, fmt.Sprintf("tcp dport %d ", port)) {
			continue
		}
		_, after, _ := strings.Cut(line, "counter packets ")
		n, err := strconv.Atoi(strings.Fields(after)[0])
		w.must(err)
		return n
	}
	w.t.Fatalf("no counter for port %d in\n%s", port, listing)
	return 0
}

// startOne runs a pod to the end of its first act and deletes it.
func (w *starts) startOne(pod *corev1.Pod, target netip.AddrPort, connects bool) {
	name := pod.Namespace + "/" + pod.Name
	if err := w.Client().Create(w.t.Context(), pod); err != nil {
		w.t.Errorf("%s: %v", name, err)
		return
	}
	result, ran := w.awaitFirstConnect(name)
	mayBeLate := pod.Labels["may-not"] == "enter" || stretch.Factor() > 1
	if ran && connects && !result.OK && mayBeLate {
		// The guarded receiver's node has to learn the pod's address first, and its agent may be
		// dead. To the unguarded one nothing has to be learnt: there the first second has to do,
		// but in an emulated machine, where a second is nothing.
		w.late.Add(1)
		result.OK = w.Reach(w.t.Context(), name, probe.TCP, target, probe.Within(settleTime)).OK
	}
	switch {
	case !ran:
		w.t.Errorf("%s never ran: %s", name, w.startFailure(name))
	case result.OK != connects:
		w.t.Errorf("%s: connected %v, want %v: %s", name, result.OK, connects, result.Result)
	case result.Attempts == 0:
		w.t.Errorf("%s made no attempt", name)
	}
	if err := w.deletePod(name); err != nil {
		w.t.Errorf("deleting %s: %v", name, err)
	}
}
