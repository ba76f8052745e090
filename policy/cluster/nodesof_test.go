package cluster_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

// TestNodesOf: each node once for each namespace that it has pods of, whatever other pods are on
// it; none for a namespace without pods, and nothing of those that aren't asked for.
func TestNodesOf(t *testing.T) {
	t.Parallel()
	c := cluster.New(cluster.Options{Node: "n1"})
	for node, namespaces := range map[string]string{"n1": "abc", "n2": "ac", "n3": "c"} {
		for _, namespace := range namespaces {
			for i := range 20 {
				name := fmt.Sprint(node, namespace, i)
				c.SetPod(policy.Pod{ID: selector.Pod{Namespace: string(namespace), Name: name,
					UID: name}, Node: node})
			}
		}
	}
	got := c.NodesOf("a", "b", "none")
	for _, nodes := range got {
		slices.Sort(nodes)
	}
	want := map[string][]string{"a": {"n1", "n2"}, "b": {"n1"}, "none": nil}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
