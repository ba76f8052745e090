package notify

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
)

// TestEventsOfAFlood: a namespace's flood doesn't delay Events about the node, about another node
// and about another namespace, and none of its control characters reaches the reader.
func TestEventsOfAFlood(t *testing.T) {
	t.Parallel()
	recorder := events.NewFakeRecorder(100)
	q := NewEventQueue(recorder)
	put := func(namespace, name, note string) {
		np := &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		q.Eventf(np, nil, corev1.EventTypeWarning, "Reason", "Action", "%s", note)
	}
	for i := range 5000 {
		put("tenant", fmt.Sprint("p", i), fmt.Sprint("flood \x1b[2J", i))
	}
	put("other", "p", "other namespace\r\n\u202e")
	e := NodeEvents{Node: "n", Recorder: q}
	e.WarnAbout("m", "NodeSkipped", "other node")
	e.Warn("RulesetNotWritten", "this node "+strings.Repeat("\x00", 2000))
	podEvents := NodeEvents{Node: "n", Recorder: q.From("pods")}
	podEvents.Warn("HostPortForbidden", "a pod")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { _ = q.Run(ctx) }()
	want := []string{
		"Warning RulesetNotWritten this node \\u0000", "Warning Reason flood \\u001b[2J0",
		`Warning Reason other namespace\u000d\u000a\u202e`,
		"Warning NodeSkipped other node", "Warning HostPortForbidden a pod",
	}
	for _, text := range want {
		select {
		case got := <-recorder.Events:
			if !strings.HasPrefix(got, text) || len(got) > 1100 {
				t.Errorf("got %q, want %q", got, text)
			}
		case <-ctx.Done():
			t.Fatalf("no Event %q", text)
		}
	}
}
