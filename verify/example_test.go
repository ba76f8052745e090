package verify_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/verify"
	"github.com/sluice-net/sluice/verify/kernel"
)

// A node with one pod, and a kernel without a table: all packets pass, also those of connections
// that are cut.
func ExamplePass() {
	c := cluster.New(cluster.Options{Node: "n1"})
	db := policy.Pod{ID: selector.Pod{Namespace: "dev", Name: "db", UID: "1"}, Node: "n1",
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.3")}}
	c.SetPod(db)
	c.SetEndpoint(policy.Endpoint{ID: "a1", Pod: db.ID, Interface: "slup1",
		Addresses: db.Addresses})
	c.Take()
	result, err := verify.NewPass(&kernel.Program{}, c.Snapshot().Meaning(),
		&verify.Node{CutLabel: 127}).
		Run(context.Background())
	fmt.Println(result.Total > 0, err)
	first := result.Differences[0]
	fmt.Println(first.Who)
	fmt.Println("kernel: ", first.Kernel)
	fmt.Println("meaning:", first.Meaning)
	// Output:
	// true <nil>
	// egress of dev/db
	// kernel:  passes it by no rule
	// meaning: dropped, the connection is cut
}
