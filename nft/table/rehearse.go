package table

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-net/sluice/nft"
)

// ErrThere says that there is a table already, which nothing was asked about.
var ErrThere = errors.New("the table is there")

// Rehearse asks the kernel whether it would take a ruleset where there is no table, and changes
// nothing: a transaction that makes all of it is checked, and taken back. The kernel may load
// modules for it. The error is ErrThere, one that says what was refused, or one of not reaching
// nftables.
func Rehearse(opts Options, want *nft.Ruleset) (err error) {
	t, err := Open(opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	exists, _, _, err := t.conn.ReadTable()
	if err != nil {
		return fmt.Errorf("reading table %s: %w", nft.TableName, err)
	}
	if exists {
		return ErrThere
	}
	none := nft.NewRuleset()
	batch := nft.Plan(none, nft.Diff(none, want))
	for _, op := range slices.Concat(batch.Prepare, batch.Switch, batch.Finish) {
		if err := t.conn.Add(op, want.Sets); err != nil {
			return err
		}
	}
	idle, err := t.conn.Rehearse()
	if err != nil {
		t.abandon(idle)
	}
	return err
}
