package cluster

import (
	"testing"
	"unsafe"

	"pgregory.net/rapid"

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
	if n := c.pods.labels.size(); n != 1 {
		t.Errorf("%d sets are kept for one pod", n)
	}
}

// Sets of one hash are counted apart, and go with their last pod.
func TestLabelSetsAreCounted(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b, pods := newLabelBook(), map[string]int{}
		hashes := rapid.Uint32Range(1, 3).Draw(t, "hashes")
		b.index.hash = func(s selector.LabelSet) uint32 {
			app, _ := s.Get("app")
			return uint32(app[0]) % hashes
		}
		set := func(app string) selector.LabelSet {
			return selector.LabelSetOf(map[string]string{"app": app})
		}
		anyApp := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				app := anyApp.Draw(t, "app")
				if b.take(set(app)) != set(app) {
					t.Fatalf("another set for %s", app)
				}
				pods[app]++
			},
			"release": func(t *rapid.T) {
				app := anyApp.Draw(t, "app") // perhaps one that nobody has
				b.release(set(app))
				if pods[app]--; pods[app] <= 0 {
					delete(pods, app)
				}
			},
			"": func(t *rapid.T) {
				if b.size() != len(pods) || len(b.sets)-len(b.free) != len(pods) {
					t.Fatalf("%d sets, %d of %d free: %v", b.size(), len(b.free), len(b.sets), pods)
				}
				for app, want := range pods {
					if n, ok := b.index.find(set(app)); !ok || int(b.sets[n].pods) != want {
						t.Fatalf("%s: %v (%t), not %d", app, b.sets[n], ok, want)
					}
				}
			},
		})
	})
}
