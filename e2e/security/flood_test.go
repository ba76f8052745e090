package security

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab"
)

// TestAFloodOfUnreadablePolicies: of a tenant's flood a part is reported; reports about others and
// the node don't wait for it, and every line of the log is one line, and JSON.
func TestAFloodOfUnreadablePolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Nodes: 1, Families: lab.IPv4})
	// in the order of the queue, at client-go's pace of 5 a second, others would wait 80 s
	const flood, patience = 400, 30 * time.Second
	for _, name := range []string{"tenant", "other"} {
		w.must(w.Client().Create(t.Context(),
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	var all sync.WaitGroup
	for part := range 4 {
		all.Go(func() {
			for i := range flood / 4 {
				if err := w.Client().Create(t.Context(),
					unreadable("tenant", fmt.Sprintf("p%d-%d", part, i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	w.must(w.Client().Create(t.Context(), unreadable("other", "p")))
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
	hostile, err := json.Marshal("\x1b[2J\r\n\u202e" + strings.Repeat("x", 100_000))
	w.must(err)
	patch := fmt.Sprintf(`{"metadata": {"annotations": {"sluice.network/underlay-ip": %s}}}`,
		hostile)
	w.must(w.Client().Patch(t.Context(), node,
		client.RawPatch("application/merge-patch+json", []byte(patch))))

	w.awaitEvent(patience, "other", "UnreadableField")
	w.awaitEvent(patience, "default", "InvalidAnnotation")
	w.awaitEvent(patience, "tenant", "UnreadableField")
	lines := 0
	for line := range strings.Lines(w.Node("node1").AgentLog()) {
		var entry struct{ Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil ||
			strings.ContainsFunc(strings.TrimSpace(line), unprintable) {
			t.Errorf("no line of JSON that can be printed (%v): %.200q", err, line)
		}
		if strings.HasPrefix(entry.Msg, "Fields of a policy") {
			lines++
		}
	}
	if lines < 2 || lines > flood/4 {
		t.Errorf("%d lines about policies that can't be read", lines)
	}
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// unreadable has a section whose type it doesn't list, which an API server lets in.
func unreadable(namespace, name string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Egress:      []networkingv1.NetworkPolicyEgressRule{{}},
		},
	}
}

// awaitEvent waits for an Event in a namespace.
func (w *world) awaitEvent(within time.Duration, namespace, reason string) {
	w.t.Helper()
	since := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ; time.Since(since) < within; <-tick.C {
		var list corev1.EventList
		w.must(w.Client().List(w.t.Context(), &list, client.InNamespace(namespace)))
		for _, e := range list.Items {
			if e.Reason != reason {
				continue
			}
			if strings.ContainsFunc(e.Message, unprintable) || len(e.Message) > 1024 {
				w.t.Errorf("%s: %q", reason, e.Message)
			}
			w.t.Logf("%s in %s after %v", reason, namespace,
				time.Since(since).Round(time.Millisecond))
			return
		}
	}
	w.t.Errorf("no Event %s in %s within %v", reason, namespace, within)
}
