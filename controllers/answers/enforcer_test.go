package answers

import (
	"context"
	"errors"
	"testing"

	"github.com/go-logr/logr/testr"

	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// newEnforcer returns an Enforcer that doesn't run, on a node of its own, and its table there.
func newEnforcer(t *testing.T) (*enforcer.Enforcer, *testnet.Node, *table.Table) {
	t.Helper()
	node := testnet.NewNode(t)
	table := packetworld.OpenTable(t, node)
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	model := enforcer.NewModel(cluster.Options{Node: cases.NodeName}, ruleset.Config{})
	return enforcer.New(table, model, enforcer.Options{Log: testr.New(t)}), node, table
}

// commitOnce has an Enforcer commit all its updates. After that the Enforcer doesn't run: it must
// not repair what a test edits.
func commitOnce(t testing.TB, e *enforcer.Enforcer) {
	t.Helper()
	within, stop := context.WithTimeout(context.Background(), packetworld.Patience)
	defer stop()
	// a repair may be under way when it ends
	for isSettled := false; !isSettled; _, isSettled = e.Settled() {
		ctx, cancel := context.WithCancel(within)
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		err := e.AwaitFirstCommit(ctx)
		cancel()
		if err := errors.Join(err, <-ended); err != nil {
			t.Fatal(err)
		}
	}
}
