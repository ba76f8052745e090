package nft

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Tally is what the counters of a chain have counted.
type Tally struct{ Packets, Bytes uint64 }

func (t Tally) plus(other Tally) Tally {
	return Tally{t.Packets + other.Packets, t.Bytes + other.Bytes}
}

// tallies is what a Table knows of the counters of chains that are tallied.
//
// A chain's last value is read when nothing leads to it any more, and right
// before it is deleted. If the deletion fails, or nobody knows whether it did,
// the value waits: it counts when the chain turns out to be gone, and is
// forgotten when the chain is still there, which will then be read again.
type tallies struct {
	ending map[string]Tally // about to be deleted
	ended  map[string]Tally // deleted, and not told to the caller yet
}

// settleGone sorts the values that wait, by whether their chain exists.
func (s *tallies) settleGone(exists func(chain string) bool) {
	for name, last := range s.ending {
		if exists(name) {
			continue
		}
		if s.ended == nil {
			s.ended = map[string]Tally{}
		}
		s.ended[name] = s.ended[name].plus(last)
	}
	s.ending = nil
}

// Tally returns what the tallied chains (see Options.Tallied) have counted
// since they were made, by name, and the last values of those that were
// deleted since the last call of Tally or TakeEnded: no packet is missing, and
// none is in both. A chain that was deleted and made again meanwhile is in
// both maps, with different packets. It costs one dump of the table's rules.
func (t *Table) Tally(ctx context.Context) (now, ended map[string]Tally, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.opts.Tallied == "" {
		return nil, nil, nil
	}
	if err := t.connect(ctx); err != nil {
		return nil, nil, err
	}
	if now, err = t.conn.tally(t.opts.Tallied, ""); err != nil {
		t.abandon(nil)
		return nil, nil, err
	}
	t.tallies.settleGone(func(chain string) bool { _, there := now[chain]; return there })
	ended, t.tallies.ended = t.tallies.ended, nil
	return now, ended, nil
}

// TakeEnded returns the last values of tallied chains that were deleted since
// the last call of Tally or TakeEnded. It asks the kernel nothing.
func (t *Table) TakeEnded() map[string]Tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	ended := t.tallies.ended
	t.tallies.ended = nil
	return ended
}

// noteEnding reads the tallied chains that the last part of a batch deletes.
// Nothing leads to them since the part before, and no packet is under way in
// them, so what they say now is final.
func (t *Table) noteEnding(ops []Op) error {
	if t.opts.Tallied == "" {
		return nil
	}
	for _, op := range ops {
		if op.Kind != DeleteChain || !strings.HasPrefix(op.Chain.Name, t.opts.Tallied) {
			continue
		}
		read, err := t.conn.tally(t.opts.Tallied, op.Chain.Name)
		if err != nil {
			t.abandon(nil)
			return err
		}
		if t.tallies.ending == nil {
			t.tallies.ending = map[string]Tally{}
		}
		t.tallies.ending[op.Chain.Name] = read[op.Chain.Name]
	}
	return nil
}

// tally reads the counters of the chains whose names start with the prefix,
// or of one chain alone. A chain without rules isn't in the result.
//
// The kernel says that a dump was interrupted when anything changed in the
// network namespace; only what changes in our table can harm, and the caller
// holds the table's lock. So it isn't repeated.
func (c *conn) tally(prefix, chain string) (map[string]Tally, error) {
	attrs := []netlink.Attribute{nameAttr(unix.NFTA_RULE_TABLE, TableName)}
	if chain != "" {
		attrs = append(attrs, nameAttr(unix.NFTA_RULE_CHAIN, chain))
	}
	bodies, err := c.ask(unix.NFT_MSG_GETRULE, netlink.Dump, attrs...)
	if errors.Is(err, unix.ENOENT) {
		return map[string]Tally{}, nil
	}
	if err != nil && !errors.Is(err, errInterrupted) {
		return nil, fmt.Errorf("reading counters: %w", err)
	}
	out := map[string]Tally{}
	for _, body := range bodies {
		name, t, err := ruleTally(body, prefix)
		if err != nil {
			return nil, fmt.Errorf("reading counters of chain %s: %w", name, err)
		}
		if strings.HasPrefix(name, prefix) {
			out[name] = out[name].plus(t)
		}
	}
	return out, nil
}

// ruleTally adds up the counters of a rule of our table, unless its chain's
// name doesn't start with the prefix.
func ruleTally(body []byte, prefix string) (chain string, t Tally, err error) {
	var exprs []byte
	ours := false
	if err := decode(body, func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.NFTA_RULE_TABLE:
			ours = ad.String() == TableName
		case unix.NFTA_RULE_CHAIN:
			chain = ad.String()
		case unix.NFTA_RULE_EXPRESSIONS:
			exprs = ad.Bytes()
		}
		return nil
	}); err != nil || !ours || !strings.HasPrefix(chain, prefix) {
		return chain, t, err
	}
	err = decode(exprs, func(ad *netlink.AttributeDecoder) error {
		counted, err := exprTally(ad.Bytes())
		t = t.plus(counted)
		return err
	})
	return chain, t, err
}

func exprTally(body []byte) (Tally, error) {
	name, data, err := splitExpr(body)
	if err != nil || name != "counter" {
		return Tally{}, err
	}
	var counter expr.Counter
	if err := expr.Unmarshal(familyINet, data, &counter); err != nil {
		return Tally{}, err
	}
	return Tally{counter.Packets, counter.Bytes}, nil
}
