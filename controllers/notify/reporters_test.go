package notify

import (
	"fmt"
	"slices"
	"testing"
)

// TestOneNodeReports: one node reports on each object, for nodes in any order, and the work is
// shared.
func TestOneNodeReports(t *testing.T) {
	t.Parallel()
	var nodes []string
	for i := range 20 {
		nodes = append(nodes, fmt.Sprintf("node%d", i))
	}
	byNode := map[string]int{}
	const objects = 400
	for i := range objects {
		object := fmt.Sprintf("uid-%d", i)
		reporters := 0
		for j, node := range nodes {
			others := slices.Concat(nodes[j:], nodes[:j])
			if !IsReporter(node, others, object) {
				continue
			}
			reporters++
			byNode[node]++
			if !IsReporter(node, others[:5], object) || !IsReporter(node, nil, object) {
				t.Errorf("%s: %s doesn't report while it knows fewer nodes", object, node)
			}
		}
		if reporters != 1 {
			t.Errorf("%s: %d nodes report", object, reporters)
		}
	}
	for node, n := range byNode {
		if n > objects/4 {
			t.Errorf("%s reports on %d of %d objects", node, n, objects)
		}
	}
}

// TestFewNodesReport: three of the nodes report on a namespace, each by its own decision.
func TestFewNodesReport(t *testing.T) {
	t.Parallel()
	var nodes []string
	for i := range 1500 {
		nodes = append(nodes, fmt.Sprintf("node%d", i))
	}
	reporters := 0
	for _, node := range nodes {
		if IsReporterAmong(node, nodes, "dev", 3) {
			reporters++
		}
	}
	if reporters != 3 {
		t.Errorf("%d nodes report, want 3", reporters)
	}
	if !IsReporterAmong(nodes[0], nodes[:3], "dev", 3) || !IsReporterAmong("alone", nil, "dev", 1) {
		t.Error("few nodes don't all report")
	}
}
