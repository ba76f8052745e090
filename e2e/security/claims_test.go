package security

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

// TestClaims: addresses in the status of a pod or a Node give no one what isn't theirs, and take
// nothing from anyone. The control before each: what would be let in is kept out, and what would be
// kept out is let in.
func TestClaims(t *testing.T) { //nolint:tparallel // the parts take turns on one lab
	t.Parallel()
	w := newWorld(t, lab.Options{})
	web := pod{name: "client", node: "node2", app: "web"}
	guarded := pod{name: "guarded", node: "node1", app: "db",
		ports: []corev1.ContainerPort{{ContainerPort: 80}}}
	w.policy("guard", admitWeb)
	w.start(web, guarded)
	w.must(w.Client().Create(t.Context(),
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: strangeNode}}))
	to := func(family int) netip.AddrPort { return w.at(guarded.place(), family, 80) }
	for _, family := range families {
		w.reached(web.place(), probe.TCP, to(family))
		w.stopped(lab.Outside, probe.TCP, to(family))
	}

	t.Run("a pod claims an outside host's addresses", func(t *testing.T) {
		w := &world{w.Lab, t}
		w.claim(pod{name: "posing", app: "web"}, w.addr(lab.Outside, 4), w.addr(lab.Outside, 6))
		for _, family := range families {
			w.stopped(lab.Outside, probe.TCP, to(family))
		}
	})
	t.Run("a newer pod claims another's addresses", func(t *testing.T) {
		w := &world{w.Lab, t}
		w.claim(pod{name: "taking", app: "evil"}, w.addr(web.place(), 4), w.addr(web.place(), 6))
		for _, family := range families {
			w.reached(web.place(), probe.TCP, to(family))
		}
	})
	t.Run("a node claims addresses", func(t *testing.T) {
		w := &world{w.Lab, t}
		const claimed4, claimed6 = "203.0.113.7", "2001:db8:113::7"
		w.policy("blocks",
			fmt.Sprintf(`{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: %s/32}}, {ipBlock: {cidr: "%s/128"}}]}]}`, claimed4, claimed6))
		for _, family := range families {
			w.stopped("node2", probe.TCP, to(family))
		}
		node := &corev1.Node{}
		w.must(w.Client().Get(t.Context(), client.ObjectKey{Name: "node2"}, node))
		for _, a := range []string{claimed4, claimed6} {
			node.Status.Addresses = append(node.Status.Addresses,
				corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: a})
		}
		w.must(w.Client().Status().Update(t.Context(), node))
		w.awaitNodes()
		for _, family := range families {
			w.stopped("node2", probe.TCP, to(family))
		}
	})
}

// strangeNode is a Node object that no node reports.
const strangeNode = "strange"

// claim makes a pod of that node with a status that says it has addresses, and returns when the
// agent of node1 knows of it.
func (w *world) claim(p pod, addrs ...netip.Addr) {
	w.t.Helper()
	p.node = strangeNode
	object := p.object()
	w.must(w.Client().Create(w.t.Context(), object))
	object.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: addrs[0].String()}
	for _, a := range addrs {
		object.Status.PodIPs = append(object.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	w.must(w.Client().Status().Update(w.t.Context(), object))
	w.eventually("node1 to know of "+p.name, func() bool {
		_, err := w.Why(w.t.Context(), "node1", p.place(), addrs[0].String(), "80")
		return err == nil || strings.Contains(err.Error(), "its status says")
	})
}

// awaitNodes returns when the agent of node1 knows all changes of Nodes so far: it reports a pod
// whose node changes after them.
func (w *world) awaitNodes() {
	w.t.Helper()
	late := pod{name: "late", app: "late"}
	w.claim(late, netip.MustParseAddr("10.244.250.9"))
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	node := &corev1.Node{}
	w.must(w.Client().Get(ctx, client.ObjectKey{Name: strangeNode}, node))
	node.Spec.PodCIDR, node.Spec.PodCIDRs = "10.244.250.0/24", []string{"10.244.250.0/24"}
	w.must(w.Client().Update(ctx, node))
	w.eventually("node1 to believe "+late.name, func() bool {
		_, err := w.Why(ctx, "node1", late.place(), w.addr(lab.Outside, 4).String(), "80")
		return err == nil
	})
}
