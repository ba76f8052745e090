package table

import (
	"context"
	"strings"

	"github.com/sluice-net/sluice/nft"
)

// tallies is what a Table knows of the counters of chains that are tallied.
//
// A chain's last value is read when nothing leads to it any more, and right before it is deleted.
// If the deletion fails, or nobody knows whether it did, the value waits: it counts when the chain
// turns out to be gone, and is forgotten when the chain is still there, which will then be read
// again.
type tallies struct {
	ending map[string]nft.Tally // about to be deleted
	ended  map[string]nft.Tally // deleted, and not told to the caller yet
}

// settleGone sorts the values that wait, by whether their chain exists.
func (s *tallies) settleGone(exists func(chain string) bool) {
	for name, last := range s.ending {
		if exists(name) {
			continue
		}
		if s.ended == nil {
			s.ended = map[string]nft.Tally{}
		}
		s.ended[name] = s.ended[name].Plus(last)
	}
	s.ending = nil
}

// Tally returns what the tallied chains (see Options.Tallied) have counted since they were made, by
// name, and the last values of those that were deleted since the last call of Tally or TakeEnded:
// no packet is missing, and none is in both. A chain that was deleted and made again meanwhile is
// in both maps, with different packets. It costs one dump of the table's rules.
func (t *Table) Tally(ctx context.Context) (now, ended map[string]nft.Tally, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.opts.Tallied == "" {
		return nil, nil, nil
	}
	if err := t.connect(ctx); err != nil {
		return nil, nil, err
	}
	if now, err = t.conn.Tally(t.opts.Tallied, ""); err != nil {
		t.abandon(nil)
		return nil, nil, err
	}
	t.tallies.settleGone(func(chain string) bool { _, there := now[chain]; return there })
	ended, t.tallies.ended = t.tallies.ended, nil
	return now, ended, nil
}

// TakeEnded returns the last values of tallied chains that were deleted since the last call of
// Tally or TakeEnded. It asks the kernel nothing.
func (t *Table) TakeEnded() map[string]nft.Tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	ended := t.tallies.ended
	t.tallies.ended = nil
	return ended
}

// noteEnding reads the tallied chains that the last part of a batch deletes. Nothing leads to them
// since the part before, and no packet is under way in them, so what they say now is final.
func (t *Table) noteEnding(ops []nft.Op) error {
	if t.opts.Tallied == "" {
		return nil
	}
	for _, op := range ops {
		if op.Kind != nft.DeleteChain || !strings.HasPrefix(op.Chain.Name, t.opts.Tallied) {
			continue
		}
		read, err := t.conn.Tally(t.opts.Tallied, op.Chain.Name)
		if err != nil {
			t.abandon(nil)
			return err
		}
		if t.tallies.ending == nil {
			t.tallies.ending = map[string]nft.Tally{}
		}
		t.tallies.ending[op.Chain.Name] = read[op.Chain.Name]
	}
	return nil
}
