package cluster

import (
	"testing"
	"unsafe"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// Equal label sets of pods are one in memory, through changes of labels and of pods, and in the
// index as well.
func TestEqualLabelsAreShared(t *testing.T) {
	t.Parallel()
	c := New(Options{Node: "n1"})
	set := func(name, app string, finished bool) {
		c.SetPod(policy.Pod{ID: selector.Pod{Namespace: "dev", Name: name, UID: name},
			Labels:   selector.LabelSetOf(map[string]string{"app": app}),
			Finished: finished})
	}
	text := func(name string) *byte {
		r := c.pods.named(policy.Key{Namespace: "dev", Name: name})
		value, _ := r.Labels.Get("app")
		return unsafe.StringData(value)
	}
	set("a", "web", false)
	set("b", "web", false)
	set("c", "db", false)
	if text("a") != text("b") || text("a") == text("c") {
		t.Error("equal sets of new pods aren't one, or others are")
	}
	first := text("a")
	set("a", "web", true) // changes, but for its labels
	if text("a") != first {
		t.Error("a change of something else brings another copy")
	}
	set("c", "web", false)
	set("a", "db", false)
	if text("c") != first || text("a") == first {
		t.Error("after new labels: equal sets aren't one, or others are")
	}
	c.DeletePod("dev", "b")
	c.DeletePod("dev", "c")
	if len(c.pods.labels) != 1 {
		t.Errorf("%d sets are kept for one pod", len(c.pods.labels))
	}
}
