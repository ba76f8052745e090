package table

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/stretch"
)

// counted runs a watch until the test ends and counts its calls.
func counted(t *testing.T, table *Table) *atomic.Int64 {
	t.Helper()
	calls := new(atomic.Int64)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- table.Watch(ctx, func() { calls.Add(1) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	awaitCalls(t, calls, 1) // of what happened before
	return calls
}

func awaitCalls(t *testing.T, calls *atomic.Int64, least int64) {
	t.Helper()
	eventually(t, func() error {
		if n := calls.Load(); n < least {
			return errors.New("nobody was called")
		}
		return nil
	})
}

// Whatever others do to the table is noticed.
func TestWatchSeesOthers(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	mustSync(t, table, everything())
	calls := counted(t, table)
	for _, c := range tampering {
		before := calls.Load()
		n.Load(c.script)
		awaitCalls(t, calls, before+1)
		if list, err := table.Repair(context.Background()); err != nil || len(list) == 0 {
			t.Errorf("%s: repaired %q, %v", c.name, list, err)
		}
		mustMatch(t, table)
	}
}

// What we do ourselves, on this connection or the next, and what others do elsewhere isn't. What
// comes after it in order is the proof that it was heard.
func TestWatchHearsNoFalseAlarm(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	mustSync(t, table, nft.NewRuleset())
	calls := counted(t, table)
	other, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(int(n.NS.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		mustSync(t, table, everything())
		mustSync(t, table, big(100, 5, 5000))
		n.Load("table inet other { set s { type ipv4_addr; elements = { 1.1.1.1 } }; }; table ip " +
			"sluice { chain c { drop; }; }")
		n.Load("delete table inet other; delete table ip sluice")
		table.mu.Lock()
		table.abandon(nil)
		table.mu.Unlock()
		mustSync(t, table, everything())
		before := calls.Load()
		if before != int64(round+1) {
			t.Fatalf("round %d: %d calls", round, before)
		}
		// One transaction with one change.
		other.AddTable(&nftables.Table{Name: "unheard", Family: nftables.TableFamilyINet})
		other.AddChain(&nftables.Chain{Name: "mine",
			Table: &nftables.Table{Name: nft.TableName, Family: nftables.TableFamilyINet}})
		if err := other.Flush(); err != nil {
			t.Fatal(err)
		}
		awaitCalls(t, calls, before+1)
	}
	if got := calls.Load(); got != 3 {
		t.Errorf("%d calls, not 3", got)
	}
	if err := other.CloseLasting(); err != nil {
		t.Error(err)
	}
}

// Where notifications are lost, something may have changed.
func TestWatchThatLosesSomething(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.openOver(every(tinyWatch), Options{})
	mustSync(t, table, node())
	calls, hold := new(atomic.Int64), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- table.Watch(ctx, func() {
			if calls.Add(1); calls.Load() == 2 {
				<-hold
			}
		})
	}()
	awaitCalls(t, calls, 1)
	n.Load("add element inet sluice pods/a { 10.9.9.9 }")
	awaitCalls(t, calls, 2)
	var script strings.Builder
	for range 200 { // of no concern, but more than the buffer holds
		script.WriteString("add table inet other { comment \"something long enough to fill a " +
			"buffer\"; }\ndelete table inet other\n")
	}
	n.Load(script.String())
	close(hold)
	awaitCalls(t, calls, 3)
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(stretch.By(10 * time.Second)):
		t.Error("the watch goes on")
	}
}
