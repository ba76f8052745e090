package foreign

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab/kubelet"
	"github.com/sluice-net/sluice/test/probe"
	"github.com/sluice-net/sluice/test/stretch"
)

// Ports of the start test: denied pods try one, their controls another, so that arriving packets
// can be distinguished.
const (
	deniedPort  = 81
	controlPort = 80
)

const startPolicies = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shut, name: no-egress}
spec: {podSelector: {matchLabels: {may-not: leave}}, policyTypes: [Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: server, name: no-entrance}
spec:
  podSelector: {matchLabels: {guard: "yes"}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: open}}}]}]
`

// testStarts: the first thing that a pod does is to connect, to a pod of its own node. Some may not
// get out, some may not get in; not one packet of theirs arrives. As many pods of an open namespace
// get through.
func (w *world) testStarts() {
	t := w.t
	each := 4 // of each kind, on each node
	if os.Getenv("SLUICE_LONG") != "" {
		each = 50
	}
	w.namespaces("open", "shut", "server")
	w.apply(startPolicies)
	var starting sync.WaitGroup
	slots := make(chan struct{}, 16) // pods that start at the same time
	for _, node := range w.Nodes() {
		_, list := runtime(t, node)
		for label, server := range map[string]string{"leave": on(node, "server/unguarded"),
			"enter": on(node, "server/guarded")} {
			w.receiver(server, node.Name(),
				map[string]string{"guard": map[string]string{"leave": "no", "enter": "yes"}[label]})
			for i := range each {
				dst := w.addr(server, i%2 == 0)
				for _, s := range []start{
					{name: on(node, fmt.Sprintf("shut/%s-%d", label, i)),
						dst: netip.AddrPortFrom(dst, deniedPort)},
					{
						name: on(node, fmt.Sprintf("open/%s-%d", label, i)),
						dst:  netip.AddrPortFrom(dst, controlPort), connects: true,
						// Where a node has nothing to learn, the first second has to do.
						atOnce: label == "leave" && len(list.Plugins) > 1,
					},
				} {
					s.node, s.label = node.Name(), label
					starting.Go(func() {
						slots <- struct{}{}
						defer func() { <-slots }()
						w.start(s)
					})
				}
			}
		}
	}
	starting.Wait()
	for _, node := range w.Nodes() {
		for _, server := range []string{on(node, "server/unguarded"), on(node, "server/guarded")} {
			denied, control := w.arrived(server, deniedPort), w.arrived(server, controlPort)
			t.Logf("%s: %d packets of %d denied pods arrived, and %d of %d controls", server,
				denied, each, control, each)
			if denied != 0 || control < each {
				t.Errorf("%s: %d packets of denied pods arrived, and %d of %d controls", server,
					denied, control, each)
			}
		}
	}
}

// start is a pod that begins with a connection.
type start struct {
	name, node, label string
	dst               netip.AddrPort
	connects, atOnce  bool // at once: within its first second
}

// start runs a pod to the end of its first connection, and deletes it.
func (w *world) start(s start) {
	p := pod(s.name, s.node, map[string]string{"may-not": s.label},
		map[string]string{kubelet.FirstConnectAnnotation: "tcp://" + s.dst.String()})
	if err := w.Client().Create(w.t.Context(), p); err != nil {
		w.t.Errorf("%s: %v", s.name, err)
		return
	}
	result, ran := w.firstConnect(s.name)
	if ran && s.connects && !result.OK && !s.atOnce {
		result.OK = w.Reach(w.t.Context(), s.name, probe.TCP, s.dst, probe.Within(settleTime)).OK
	}
	if !ran || result.OK != s.connects || result.Attempts == 0 {
		w.t.Errorf("%s: ran %v, %d attempts, connected %v (%s), want %v", s.name, ran,
			result.Attempts, result.OK, result.Result, s.connects)
	}
	err := w.Client().Delete(w.t.Context(), p, client.GracePeriodSeconds(1))
	if err == nil {
		err = w.WaitGone(w.t.Context(), s.name)
	}
	if err != nil {
		w.t.Errorf("deleting %s: %v", s.name, err)
	}
}

// firstConnect waits for the outcome of a pod's first connection.
func (w *world) firstConnect(name string) (out kubelet.FirstConnect, done bool) {
	tick := time.NewTicker(stretch.By(100 * time.Millisecond))
	defer tick.Stop()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); <-tick.C {
		p, err := w.object(name)
		if err == nil &&
			json.Unmarshal([]byte(p.Annotations[kubelet.FirstConnectResultAnnotation]),
				&out) == nil {
			return out, true
		}
	}
	return out, false
}

func (w *world) object(name string) (*corev1.Pod, error) {
	p := pod(name, "", nil, nil)
	err := w.Client().Get(w.t.Context(), client.ObjectKeyFromObject(p), p)
	return p, err
}

// receiver starts a pod that counts the connections it is sent.
func (w *world) receiver(name, node string, labels map[string]string) {
	w.t.Helper()
	w.create(pod(name, node, labels, nil))
	rules := []string{"add table inet count",
		"add chain inet count in { type filter hook prerouting priority raw; }"}
	for _, port := range []int{deniedPort, controlPort} {
		rules = append(rules,
			fmt.Sprintf(
				"add rule inet count in tcp dport %d tcp flags & (syn | ack) == syn counter", port))
	}
	_, err := w.Nft(w.t.Context(), name, strings.Join(rules, "; "))
	must(w.t, err)
}

// arrived returns how many first packets to a port a receiver got.
func (w *world) arrived(receiver string, port int) int {
	w.t.Helper()
	listing, err := w.Nft(w.t.Context(), receiver, "list", "table", "inet", "count")
	must(w.t, err)
	for line := range strings.SplitSeq(listing, "\n") {
		before, after, found := strings.Cut(line, "counter packets ")
		if found && strings.Contains(before, fmt.Sprintf("tcp dport %d ", port)) {
			n, err := strconv.Atoi(strings.Fields(after)[0])
			must(w.t, err)
			return n
		}
	}
	w.t.Fatalf("no counter for port %d in\n%s", port, listing)
	return 0
}
