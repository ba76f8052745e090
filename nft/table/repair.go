package table

import (
	"context"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/wire"
)

// Repair reads the table back and makes it again what is desired. It returns in what it differed,
// as Check does, if that was somebody else's doing: where an earlier write has failed, nobody
// knows. The errors are Sync's.
func (t *Table) Repair(ctx context.Context) ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	got, goal, err := t.bothSides(ctx)
	if err != nil {
		return nil, err
	}
	list := got.Differences(goal)
	if t.stale {
		return nil, t.sync(ctx)
	}
	if len(list) == 0 {
		return nil, nil
	}
	again, err := t.converge(ctx, got, goal)
	if err == nil && again {
		settle()
		err = t.sync(ctx)
	}
	return list, err
}

// bothSides returns what the kernel has, and what it is to have.
func (t *Table) bothSides(ctx context.Context) (got *wire.Installed, goal *nft.Ruleset, err error) {
	if goal, err = t.goal(); err != nil {
		return nil, nil, err
	}
	got, err = t.readBack(ctx, goal)
	return got, goal, err
}
