package packetworld

import (
	"testing"

	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/test/testnet"
)

// OpenTable opens the table of a node, which is the caller's to close.
func OpenTable(t testing.TB, node *testnet.Node) *table.Table {
	t.Helper()
	table, err := table.Open(table.Options{NetNS: node.NSFd()})
	if err != nil {
		t.Fatal(err)
	}
	return table
}
