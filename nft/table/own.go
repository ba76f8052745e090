package table

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/wire"
)

// ownership is what a Table knows of who owns the table.
type ownership struct {
	probed   bool
	possible bool // the kernel has owned tables that persist
	ours     bool // our connection owns it
	// former are the netlink ports of connections that were given up since the table was last
	// claimed: see readOwner.
	former []uint32
}

// WhyNotOwned says why the table isn't owned by this Table, or nothing if it is or isn't to be.
// Nobody but its owner can change a table. Where the kernel is older than 6.9, or the table was
// made un-owned, it is used as it is.
func (t *Table) WhyNotOwned() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.opts.Own || t.own.ours && t.conn != nil:
		return ""
	case t.own.probed && !t.own.possible:
		return "the kernel can't: tables that are owned and persist came with Linux 6.9"
	case t.conn == nil || t.stale:
		return "the connection to the kernel was lost"
	}
	return "the table was made without an owner; it can't be claimed before it is made anew, at " +
		"the latest by a reboot"
}

// claim makes an orphan ours, before it is read: what is read afterwards stays so. It refuses to go
// on where the table is somebody else's.
func (t *Table) claim(ctx context.Context) error {
	if err := t.connect(ctx); err != nil {
		return err
	}
	if err := t.probeOwning(ctx); err != nil {
		return err
	}
	exists, flags, owner, err := t.readOwner(ctx)
	if err != nil {
		t.abandon(nil)
		return fmt.Errorf("reading table %s: %w", nft.TableName, err)
	}
	t.own.ours = exists && owner != 0 && owner == t.conn.Port()
	t.conn.TableFlags = flags & wire.TablePersist
	switch {
	case owner != 0 && !t.own.ours:
		return fmt.Errorf("%w: the one whose socket has the netlink port %d; end it first",
			nft.ErrOwned, owner)
	case !t.own.possible:
		return nil
	case exists && flags&wire.TablePersist == 0:
		return nil // used as it is
	}
	t.conn.TableFlags = wire.TableOwner | wire.TablePersist
	if !exists || t.own.ours {
		return nil
	}
	if err := t.transact(ctx, []nft.Op{{Kind: nft.AddTable}}); err != nil {
		return fmt.Errorf("claiming table %s: %w", nft.TableName, err)
	}
	t.own.ours, t.own.former = true, nil
	return nil
}

// askAgain is how long a closed connection is left to let go of the table before it is looked at
// again.
const askAgain = 2 * time.Millisecond

// readOwner asks for the table alone. Where a connection owns it that this Table has closed, it
// waits, at most as long as for a transaction: the kernel lets go when nobody holds the socket any
// more, and a child process that is being started (fork) holds all of its parent's until it runs
// its program.
func (t *Table) readOwner(ctx context.Context) (exists bool, flags, owner uint32, err error) {
	deadline := time.NewTimer(t.opts.FlushTimeout)
	defer deadline.Stop()
	again := time.NewTicker(askAgain)
	defer again.Stop()
	for {
		exists, flags, owner, err = t.conn.ReadTable()
		if err != nil || owner == t.conn.Port() || !slices.Contains(t.own.former, owner) {
			return exists, flags, owner, err
		}
		select {
		case <-again.C:
		case <-deadline.C:
			return exists, flags, owner, nil
		case <-ctx.Done():
			return false, 0, 0,
				fmt.Errorf("waiting for an earlier connection to let go of it: %w", ctx.Err())
		}
	}
}

// awaitOrphan waits until the kernel has let go of the closed connection that owned the table, at
// most as long as for a transaction.
func (t *Table) awaitOrphan(former uint32) error {
	t.own.ours, t.own.former = false, []uint32{former}
	c, err := wire.Dial(t.dial, t.opts.NetNS, t.opts.FlushTimeout)
	if err != nil {
		return err
	}
	t.conn = c
	_, _, owner, err := t.readOwner(context.Background())
	if err == nil && owner == former {
		err = fmt.Errorf("the closed connection, with the netlink port %d, still owns table %s",
			owner, nft.TableName)
	}
	t.conn = nil
	return errors.Join(err, c.Close())
}

// probeOwning finds out whether the kernel has tables that are owned and persist, by a transaction
// that is refused whatever it has.
func (t *Table) probeOwning(ctx context.Context) error {
	if t.own.probed || !t.opts.Own {
		return nil
	}
	if err := t.conn.AskForOwnedTables(); err != nil {
		t.abandon(nil)
		return err
	}
	err := t.flush(ctx)
	possible, err := wire.OwnedTables(err)
	if err != nil {
		return fmt.Errorf("asking whether tables can be owned: %w", err)
	}
	t.own.probed, t.own.possible = true, possible
	return t.connect(ctx)
}
