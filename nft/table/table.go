package table

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/internal/nftsocket"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/wire"
)

// Options say how to reach the kernel. The zero value is fine.
type Options struct {
	// NetNS is a file descriptor of the network namespace, which must stay open as long as the
	// Table; 0 is the calling thread's.
	NetNS int

	// FlushTimeout is the longest that one transaction may take; 0 is 10 s.
	FlushTimeout time.Duration

	// MaxMessages is how many messages a transaction has at most where it may be split; 0 is 2000.
	MaxMessages int

	// Tallied is what the names of those chains start with whose counters must not be lost when
	// they are deleted, see Tally; empty: none.
	Tallied string

	// Own makes the table belong to the Table's connection wherever the kernel can, so that nobody
	// else can change it: see WhyNotOwned.
	Own bool
}

// A Table is the installed table, and its only writer. Its methods may be called from several
// goroutines; they take turns.
type Table struct {
	opts Options
	dial nftsocket.Dialer

	mu      sync.Mutex
	conn    *wire.Conn      // nil: to be dialled
	busy    <-chan struct{} // open while a transaction that was given up goes on
	desired *nft.Ruleset    // what the caller wants; installed, too, unless stale
	stale   bool            // desired may not be what is installed
	flushes int             // transactions so far, for tests
	tallies tallies

	own   ownership
	left  map[nft.Object]struct{} // what is left out of desired: see LeaveOut
	watch nftsocket.Socket        // the socket of Watch, or nil
	port  atomic.Uint32           // the netlink port of the last connection
}

// Open connects to the kernel. It changes nothing there. The Table has to be closed.
func Open(opts Options) (*Table, error) { return OpenOver(nftsocket.Dial, opts) }

// OpenOver is Open over connections of another making.
func OpenOver(dial nftsocket.Dialer, opts Options) (*Table, error) {
	if opts.FlushTimeout == 0 {
		opts.FlushTimeout = 10 * time.Second
	}
	if opts.MaxMessages == 0 {
		opts.MaxMessages = 2000
	}
	t := &Table{opts: opts, dial: dial, desired: nft.NewRuleset(), stale: true}
	if err := t.connect(context.Background()); err != nil {
		return nil, err
	}
	return t, nil
}

// Close disconnects. What is installed stays, and is an orphan when Close returns, for whoever
// claims it next.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return nil
	}
	c, owned := t.conn, t.own.ours
	t.conn = nil
	if err := c.Close(); err != nil {
		return fmt.Errorf("closing the connection to nftables: %w", err)
	}
	if owned {
		return t.awaitOrphan(c.Port())
	}
	return nil
}

// Sync makes the table what want says, whatever is there: it reads the kernel back, and changes
// only what differs. It takes ownership of want. A table that is as wanted already sees no
// transaction, so a restarted agent adopts what the last one left.
//
// An error wraps ErrRefused or ErrUnknownOutcome if it comes from a transaction. Earlier
// transactions of the same call may have happened; they allow nothing that both the old and the
// wanted state forbid. Afterwards the Table is stale: the next Sync or Apply reads the kernel back.
func (t *Table) Sync(ctx context.Context, want *nft.Ruleset) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.desired, t.stale, t.left = want, true, nil
	return t.sync(ctx)
}

// Apply changes the table by a patch, and takes ownership of it. Its cost follows the patch, not
// the size of the table. Where the Table is stale, it is Sync of what is desired with the patch.
// The errors are Sync's; the patch counts as desired even after an error, so it need not be sent
// again.
func (t *Table) Apply(ctx context.Context, p nft.Patch) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := p.Check(t.desired); err != nil {
		return err
	}
	if t.stale {
		t.desired.Merge(p)
		t.retryChanged(p)
		return t.sync(ctx)
	}
	if len(t.left) > 0 {
		return t.applyWithout(ctx, p)
	}
	batch := nft.Plan(t.desired, p)
	t.desired.Merge(p)
	return t.carryOut(ctx, batch, nil)
}

// Check reads the table back and says in what it differs from what is desired, one line for each
// object; nothing when it doesn't.
func (t *Table) Check(ctx context.Context) ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	got, goal, err := t.bothSides(ctx)
	if err != nil {
		return nil, err
	}
	return got.Differences(goal), nil
}

func (t *Table) sync(ctx context.Context) error {
	const rounds = 2
	for range rounds {
		again, err := t.syncOnce(ctx)
		if err != nil || !again {
			return err
		}
		settle()
	}
	return nil
}

// syncOnce reports whether it has left something for another round.
func (t *Table) syncOnce(ctx context.Context) (again bool, err error) {
	goal, err := t.goal()
	if err != nil {
		return false, err
	}
	if err := t.claim(ctx); err != nil {
		return false, err
	}
	got, err := t.readBack(ctx, goal)
	if err != nil {
		return false, err
	}
	return t.converge(ctx, got, goal)
}

// converge makes the goal of what the kernel has. It reports whether it has left something for
// another round.
func (t *Table) converge(ctx context.Context, got *wire.Installed,
	goal *nft.Ruleset) (again bool, err error) {
	if !got.Exists && t.own.possible {
		// it may have gone since it was claimed
		t.conn.TableFlags = wire.TableOwner | wire.TablePersist
	}
	t.tallies.settleGone(func(chain string) bool { return got.Rules.Chains[chain] != nil })
	batch := nft.Plan(got.Rules, nft.Diff(got.Rules, goal))
	if got.Exists {
		batch.Prepare = withoutAddTable(batch.Prepare)
	}
	if got.Asleep || !got.Exists && len(batch.Prepare) == 0 {
		// Writing a dormant table without that flag wakes it.
		batch.Prepare = append([]nft.Op{{Kind: nft.AddTable}}, batch.Prepare...)
	}
	if err := t.carryOut(ctx, batch, got.Others); err != nil {
		return false, err
	}
	t.own.ours = t.own.ours || t.conn.TableFlags&wire.TableOwner != 0
	return batch.Twins, nil
}

func withoutAddTable(ops []nft.Op) []nft.Op {
	if len(ops) > 0 && ops[0].Kind == nft.AddTable {
		return ops[1:]
	}
	return ops
}

func (t *Table) readBack(ctx context.Context, like *nft.Ruleset) (*wire.Installed, error) {
	if err := t.connect(ctx); err != nil {
		return nil, err
	}
	got, err := t.conn.Read(like)
	if err != nil {
		t.abandon(nil)
		return nil, err
	}
	return got, nil
}

// carryOut runs the transactions of a batch, and then deletes what is none of ours.
func (t *Table) carryOut(ctx context.Context, b nft.Batch, others []wire.Other) error {
	t.stale = true
	if err := t.connect(ctx); err != nil {
		return err
	}
	for _, step := range b.Parts() {
		if step.Wait {
			settle()
		}
		if step.Name == "finish" {
			if err := t.noteEnding(step.Ops); err != nil {
				return err
			}
		}
		most := t.opts.MaxMessages
		if step.Whole {
			most = 0
		}
		for _, ops := range nft.Split(step.Ops, most) {
			if err := t.transact(ctx, ops); err != nil {
				return fmt.Errorf("%s: %w", step.Name, err)
			}
		}
		if err := t.verify(step.Ops); err != nil {
			return fmt.Errorf("%s: %w", step.Name, err)
		}
	}
	t.tallies.settleGone(func(string) bool { return false })
	if len(others) > 0 {
		for _, o := range others {
			if err := t.conn.DeleteOther(o); err != nil {
				t.abandon(nil) // what is queued must never be sent
				return err
			}
		}
		if err := t.flush(ctx); err != nil {
			return fmt.Errorf("deleting foreign objects: %w", err)
		}
	}
	t.stale = false
	return nil
}

func (t *Table) transact(ctx context.Context, ops []nft.Op) error {
	for _, op := range ops {
		if err := t.conn.Add(op, t.desired.Sets); err != nil {
			t.abandon(nil) // what is queued must never be sent
			return err
		}
	}
	return t.flush(ctx)
}

func (t *Table) flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		t.abandon(nil)
		return fmt.Errorf("between two transactions: %w", err)
	}
	t.flushes++
	idle, err := t.conn.Flush()
	if err != nil {
		t.abandon(idle)
	}
	return err
}

// abandon gives a connection up. If it is still in use, it is closed as soon as it isn't, and until
// then nothing else is begun: a transaction that comes late must not undo a newer one.
func (t *Table) abandon(idle <-chan struct{}) {
	c := t.conn
	t.conn, t.stale, t.own.ours = nil, true, false
	t.own.former = append(t.own.former, c.Port())
	if idle == nil {
		now := make(chan struct{})
		close(now)
		idle = now
	}
	closed := make(chan struct{})
	closeNow := func() {
		<-idle
		_ = c.Close() // nothing depends on it any more
		close(closed)
	}
	select {
	case <-idle:
		closeNow()
	default:
		go closeNow()
	}
	t.busy = closed
}

// connect sees to it that there is a connection.
func (t *Table) connect(ctx context.Context) error {
	if t.busy != nil {
		timer := time.NewTimer(t.opts.FlushTimeout)
		defer timer.Stop()
		select {
		case <-t.busy:
			t.busy = nil
		case <-timer.C:
			return fmt.Errorf("%w: an earlier transaction hasn't ended yet", nft.ErrUnknownOutcome)
		case <-ctx.Done():
			return fmt.Errorf("waiting for an earlier transaction to end: %w", ctx.Err())
		}
	}
	if t.conn != nil {
		return nil
	}
	c, err := wire.Dial(t.dial, t.opts.NetNS, t.opts.FlushTimeout)
	if err != nil {
		return err
	}
	t.conn = c
	return t.muteOwn()
}

// errIncomplete says that less than what was sent has arrived.
var errIncomplete = errors.New("elements are missing after the kernel said it added all")

// verify counts the elements of new sets that took more than one message.
func (t *Table) verify(ops []nft.Op) error {
	for _, op := range ops {
		if op.Kind != nft.AddSet || len(op.Set.Elements) <= nft.ChunkElements {
			continue
		}
		elements, err := t.conn.ReadElements(op.Set)
		if err == nil && len(elements) != len(op.Set.Elements) {
			err = fmt.Errorf("%w: %d of %d", errIncomplete, len(elements), len(op.Set.Elements))
		}
		if err != nil {
			t.abandon(nil)
			return fmt.Errorf("verifying set %s: %w: %w", op.Set.Name, nft.ErrUnknownOutcome, err)
		}
	}
	return nil
}
