package notify_test

import (
	"fmt"

	"github.com/sluice-net/sluice/controllers/notify"
)

// Each node decides by itself, and one of them reports.
func ExampleIsReporter() {
	nodes := []string{"n1", "n2", "n3"}
	for _, node := range nodes {
		fmt.Println(node, notify.IsReporter(node, nodes, "dev/deny-all"))
	}
	// Output:
	// n1 true
	// n2 false
	// n3 false
}
