package kill

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/internal/killpoint"
	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/stretch"
)

// settleTime is how long a change may take until it is in force on a busy machine; that it takes
// less is shown elsewhere.
var settleTime = stretch.By(time.Minute)

// subject is the node whose agent dies; the agent of neighbour doesn't.
const subject, neighbour = "node1", "node2"

// The pods that are there all the time. All serve TCP and UDP on the ports of served. The server's
// policies allow something; the others have none.
const (
	server    = "app/server"
	client1   = "app/client"
	other     = "app/other"
	farClient = "app/far" // with the labels of client1
)

var served = []int32{80, 81, 82}

// world is a lab, for a test or a part of one.
type world struct {
	*lab.Lab
	t    *testing.T
	trap *killpoint.Trap // of the agent that runs on subject
}

// newWorld starts a lab of two nodes, with the pods. It returns those on subject.
func newWorld(t *testing.T, name string, onSubject ...string) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	l, err := lab.Up(t.Context(),
		lab.Options{Name: fmt.Sprintf("%s-%d", name, os.Getpid()), Progress: t.Output()})
	must(t, err)
	w := &world{Lab: l, t: t}
	t.Cleanup(func() {
		if t.Failed() {
			for _, node := range l.Nodes() {
				t.Logf("agent of %s:\n%s", node.Name(), node.AgentLog())
			}
		}
		if err := l.Down(); err != nil {
			t.Errorf("removing the lab: %v", err)
		}
		if w.trap != nil {
			w.trap.Close()
		}
	})
	launcher, err := killpoint.Launcher()
	must(t, err)
	w.node().LaunchAgentBy(launcher...)
	must(t, w.Apply(t.Context(), "{apiVersion: v1, kind: Namespace, metadata: {name: app}}"))
	for name, app := range map[string]string{server: "server", client1: "client", other: "other",
		farClient: "client"} {
		node := neighbour
		if slices.Contains(onSubject, name) {
			node = subject
		}
		w.create(name, node, app, nil)
	}
	w.ready(server, client1, other, farClient)
	w.apply(serverPolicy(false))
	w.apply(newPolicy)
	w.routeDirectly(false) // in the form that it has later
	w.restart()            // by way of the launcher
	w.check("at first", opened, false)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) node() *lab.Node { return w.Node(subject) }

// create creates a pod that serves the ports of served.
func (w *world) create(name, node, app string, annotations map[string]string) {
	w.t.Helper()
	namespace, short, _ := strings.Cut(name, "/")
	var ports []corev1.ContainerPort
	for _, port := range served {
		ports = append(ports, corev1.ContainerPort{ContainerPort: port},
			corev1.ContainerPort{ContainerPort: port, Protocol: corev1.ProtocolUDP})
	}
	must(w.t, w.Client().Create(w.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: short,
			Labels: map[string]string{"app": app}, Annotations: annotations},
		Spec: corev1.PodSpec{NodeName: node,
			Containers: []corev1.Container{{Name: "main", Image: "none", Ports: ports}}},
	}))
}

// remove deletes a pod, and doesn't wait until it is gone.
func (w *world) remove(name string) {
	w.t.Helper()
	namespace, short, _ := strings.Cut(name, "/")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: short}}
	must(w.t, w.Client().Delete(w.t.Context(), pod, client.GracePeriodSeconds(1)))
}

// ready waits until pods are ready, gone until they are gone.
func (w *world) ready(pods ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*settleTime)
	defer cancel()
	must(w.t, w.WaitReady(ctx, pods...))
}

func (w *world) gone(pods ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*settleTime)
	defer cancel()
	must(w.t, w.WaitGone(ctx, pods...))
}

func (w *world) apply(manifests string) {
	w.t.Helper()
	must(w.t, w.Apply(w.t.Context(), manifests))
}

// target is a port of a pod, in a family.
func (w *world) target(pod string, family int, port uint16) netip.AddrPort {
	w.t.Helper()
	p, err := w.Pod(pod)
	must(w.t, err)
	if family == 4 {
		return netip.AddrPortFrom(p.Addr4(), port)
	}
	return netip.AddrPortFrom(p.Addr6(), port)
}

// kill ends the subject's agent from outside.
func (w *world) kill() {
	w.node().KillAgent()
	if w.trap != nil {
		w.trap.Close()
		w.trap = nil
	}
}

// start starts the subject's agent, armed from its first call on, or not at all with nil.
func (w *world) start(aim *killpoint.Aim) {
	w.t.Helper()
	w.kill()
	must(w.t, w.node().StartAgent())
	w.attach(aim)
}

// reboot reboots the subject. Its new agent is armed from its first call on.
func (w *world) reboot(aim *killpoint.Aim) {
	w.t.Helper()
	must(w.t, w.node().Reboot())
	w.trap.Close()
	w.attach(aim)
}

// attach answers for an agent that was just started.
func (w *world) attach(aim *killpoint.Aim) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), settleTime)
	defer cancel()
	var err error
	w.trap, err = killpoint.Attach(ctx, w.node().AgentPID(), aim)
	must(w.t, err)
}

// restart starts an agent that isn't killed, and waits until it is ready.
func (w *world) restart() {
	w.t.Helper()
	w.start(nil)
	ctx, cancel := context.WithTimeout(w.t.Context(), settleTime)
	defer cancel()
	must(w.t, w.node().WaitAgentReady(ctx))
}

// eventually waits until a condition holds.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(settleTime); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited %v for %s", settleTime, what)
		}
	}
}
