package notify

import (
	"fmt"
	"slices"
	"testing"
)

// TestOneNodeTells: of each object one node tells, whoever comes in whatever order, and the work is
// shared.
func TestOneNodeTells(t *testing.T) {
	t.Parallel()
	var nodes []string
	for i := range 20 {
		nodes = append(nodes, fmt.Sprintf("node%d", i))
	}
	byNode := map[string]int{}
	const objects = 400
	for i := range objects {
		object := fmt.Sprintf("uid-%d", i)
		tellers := 0
		for j, node := range nodes {
			others := slices.Concat(nodes[j:], nodes[:j])
			if !Tells(node, others, object) {
				continue
			}
			tellers++
			byNode[node]++
			if !Tells(node, others[:5], object) || !Tells(node, nil, object) {
				t.Errorf("%s: %s doesn't tell while it knows fewer nodes", object, node)
			}
		}
		if tellers != 1 {
			t.Errorf("%s: %d nodes tell", object, tellers)
		}
	}
	for node, n := range byNode {
		if n > objects/4 {
			t.Errorf("%s tells of %d of %d objects", node, n, objects)
		}
	}
}

// TestFewNodesTell: of a namespace three of the nodes tell, each on its own.
func TestFewNodesTell(t *testing.T) {
	t.Parallel()
	var nodes []string
	for i := range 1500 {
		nodes = append(nodes, fmt.Sprintf("node%d", i))
	}
	tellers := 0
	for _, node := range nodes {
		if TellsAmong(node, nodes, "dev", 3) {
			tellers++
		}
	}
	if tellers != 3 {
		t.Errorf("%d nodes tell, want 3", tellers)
	}
	if !TellsAmong(nodes[0], nodes[:3], "dev", 3) || !TellsAmong("alone", nil, "dev", 1) {
		t.Error("few nodes don't all tell")
	}
}
