package table

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/wire"
)

// canOwn skips a test on a kernel without owned tables that persist.
func canOwn(t *testing.T) {
	t.Helper()
	n := newNamespace(t)
	table := n.open(Options{Own: true})
	mustSync(t, table, nft.NewRuleset())
	if !table.own.possible {
		t.Skip("this kernel has no owned tables that persist")
	}
}

// What others may try on an owned table, and on none.
var tampering = []struct{ name, script string }{
	{"ruleset flushed", "flush ruleset"},
	{"table deleted", "delete table inet sluice"},
	{"table flushed", "flush table inet sluice"},
	{"rule inserted", "insert rule inet sluice egress/1 accept"},
	{"set emptied", "flush set inet sluice set/hosts4"},
	{"map emptied", "flush map inet sluice map/veth4"},
	{"chain flushed", "flush chain inet sluice pod/dev/web-0/egress"},
	{"element added", "add element inet sluice set/hosts4 { 10.9.9.9 }"},
	{"object added", "add counter inet sluice mine"},
	{"chain added", "add chain inet sluice mine { type filter hook forward priority -7; accept; }"},
	{"table made dormant", "add table inet sluice { flags dormant; }"},
}

func TestOwnedTableIsLeftAlone(t *testing.T) {
	t.Parallel()
	canOwn(t)
	n := newNamespace(t)
	table := n.open(Options{Own: true})
	mustSync(t, table, everything())
	if !table.Owned() || table.WhyNotOwned() != "" {
		t.Fatalf("it isn't owned: %s", table.WhyNotOwned())
	}
	before := n.Nft("list", "table", "inet", nft.TableName)
	if !strings.Contains(before, "flags owner") {
		t.Errorf("nft doesn't show the owner:\n%s", before)
	}
	for _, c := range tampering {
		out, err := n.Try(c.script, "-f", "-")
		if c.script != "flush ruleset" &&
			(err == nil || !strings.Contains(out, "Operation not permitted")) {
			t.Errorf("%s: %v: %s", c.name, err, out)
		}
		if after := n.Nft("list", "table", "inet", nft.TableName); after != before {
			t.Errorf("%s: before\n%s\nafter\n%s", c.name, before, after)
		}
	}
	mustMatch(t, table)
	flushes := table.flushes
	mustSync(t, table, everything())
	if table.flushes != flushes {
		t.Error("it isn't at rest")
	}
	mustApply(t, table, nft.Diff(everything(), big(3, 1, 3)))
	mustMatch(t, table)
}

// TestTamperingControl: without an owner, each of those changes something.
func TestTamperingControl(t *testing.T) {
	t.Parallel()
	for _, c := range tampering {
		n := newNamespace(t)
		table := n.open(Options{})
		mustSync(t, table, everything())
		n.Load(c.script)
		list, err := table.Repair(context.Background())
		if err != nil || len(list) == 0 {
			t.Errorf("%s: repaired %q, %v", c.name, list, err)
		}
		mustMatch(t, table)
	}
}

// Whoever comes while the owner lives is told so, and changes nothing. When it has gone the table
// is still there, and the next one takes it over.
func TestOwnership(t *testing.T) {
	t.Parallel()
	canOwn(t)
	n := newNamespace(t)
	first := n.open(Options{Own: true})
	mustSync(t, first, everything())
	before := n.Nft("list", "table", "inet", nft.TableName)
	for _, own := range []bool{true, false} {
		second := n.open(Options{Own: own})
		if err := second.Sync(context.Background(), nft.NewRuleset()); !errors.Is(err,
			nft.ErrOwned) {
			t.Errorf("a second writer, Own=%v: %v", own, err)
		}
		if second.Owned() {
			t.Error("both own it")
		}
	}
	if err := Remove(Options{NetNS: int(n.NS.Fd())}); !errors.Is(err, nft.ErrOwned) {
		t.Errorf("Remove while the owner lives: %v", err)
	}
	if after := n.Nft("list", "table", "inet", nft.TableName); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	orphan := n.Nft("list", "table", "inet", nft.TableName)
	if strings.Contains(orphan, "owner") || !strings.Contains(orphan, "pod/dev/web-0/egress") {
		t.Errorf("without its owner:\n%s", orphan)
	}
	third := n.open(Options{Own: true})
	mustSync(t, third, everything())
	if third.flushes != 2 { // the question whether it can, and the claim
		t.Errorf("taking it over took %d transactions", third.flushes)
	}
	if after := n.Nft("list", "table", "inet", nft.TableName); after != before || !third.Owned() {
		t.Errorf("Owned: %v; before\n%s\nafter\n%s", third.Owned(), before, after)
	}
	if err := third.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Remove(Options{NetNS: int(n.NS.Fd())}); err != nil {
		t.Errorf("Remove of an orphan: %v", err)
	}
	if out := n.Nft("list", "ruleset"); out != "" {
		t.Errorf("left: %s", out)
	}
}

// What was done to the orphan is repaired by the next owner, which claims before it reads. Where it
// wasn't left sleeping it can't be put to sleep: nft would have to know the flag.
func TestOrphanIsRepaired(t *testing.T) {
	t.Parallel()
	canOwn(t)
	for _, c := range tampering {
		n := newNamespace(t)
		first := n.open(Options{Own: true})
		mustSync(t, first, everything())
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		if out, err := n.Try(c.script, "-f", "-"); err != nil && c.name != "table made dormant" {
			t.Errorf("%s: %v: %s", c.name, err, out)
		}
		second := n.open(Options{Own: true})
		mustSync(t, second, everything())
		mustMatch(t, second)
		if !second.Owned() {
			t.Errorf("%s: not owned: %s", c.name, second.WhyNotOwned())
		}
	}
}

// A sleeping orphan is claimed and woken.
func TestSleepingOrphan(t *testing.T) {
	t.Parallel()
	canOwn(t)
	for _, own := range []bool{true, false} {
		n := newNamespace(t)
		first := n.open(Options{Own: true})
		mustSync(t, first, everything())
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		other := n.open(Options{})
		other.conn.TableFlags = wire.TablePersist | 1 // NFT_TABLE_F_DORMANT
		if err := other.transact(context.Background(), []nft.Op{{Kind: nft.AddTable}}); err != nil {
			t.Fatal(err)
		}
		out := n.Nft("list", "table", "inet", nft.TableName)
		if !strings.Contains(out, "flags dormant") {
			t.Fatalf("it doesn't sleep:\n%s", out)
		}
		second := n.open(Options{Own: own})
		mustSync(t, second, everything())
		mustMatch(t, second)
		if second.Owned() != own {
			t.Errorf("Own=%v: Owned %v: %s", own, second.Owned(), second.WhyNotOwned())
		}
	}
}

// A table that was made un-owned is used as it is, and never deleted for that.
func TestUnownedTableStaysSo(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	mustSync(t, n.open(Options{}), everything())
	before := n.Listing()
	table := n.open(Options{Own: true})
	mustSync(t, table, everything())
	if after := n.Listing(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if table.Owned() || !strings.Contains(table.WhyNotOwned(), "made without an owner") &&
		table.own.possible {
		t.Errorf("Owned %v: %s", table.Owned(), table.WhyNotOwned())
	}
	mustApply(t, table, nft.Diff(everything(), big(3, 1, 3)))
	mustMatch(t, table)
	n.Load("add table inet sluice { flags dormant; }")
	mustSync(t, table, big(3, 1, 3))
	mustMatch(t, table)
	n.Load("delete table inet sluice")
	mustSync(t, table, everything())
	mustMatch(t, table)
	if table.own.possible && !table.Owned() {
		t.Errorf("made anew, it isn't owned: %s", table.WhyNotOwned())
	}
}

func TestKernelThatCannotOwn(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.openOver(every(older), Options{Own: true})
	mustSync(t, table, everything())
	mustMatch(t, table)
	if table.Owned() || !strings.Contains(table.WhyNotOwned(), "6.9") {
		t.Errorf("Owned %v: %s", table.Owned(), table.WhyNotOwned())
	}
	if out := n.Nft("list", "table", "inet", nft.TableName); strings.Contains(out, "\n\tflags") {
		t.Errorf("it has flags:\n%s", out)
	}
}

// With a lost connection goes the ownership; the next one claims it again.
func TestLostConnectionClaimsAgain(t *testing.T) {
	t.Parallel()
	canOwn(t)
	n := newNamespace(t)
	// The first one asks whether tables can be owned.
	table := n.openOver(nth(2, tiny), Options{Own: true})
	err := table.Sync(context.Background(), big(200, 5, 100))
	if !errors.Is(err, nft.ErrUnknownOutcome) {
		t.Fatalf("Sync: %v", err)
	}
	if table.Owned() || table.WhyNotOwned() == "" {
		t.Error("owned without a connection")
	}
	mustApply(t, table, nft.Patch{})
	mustMatch(t, table)
	if !table.Owned() {
		t.Errorf("not claimed again: %s", table.WhyNotOwned())
	}
}

// TestHeldConnectionClaimsAgain: a connection that the Table has closed, but that a process which
// is being started still holds, isn't another owner.
func TestHeldConnectionClaimsAgain(t *testing.T) {
	t.Parallel()
	canOwn(t)
	n := newNamespace(t)
	var last holder
	table := n.openOver(every(last.wrap), Options{Own: true})
	mustSync(t, table, everything())
	held := last.hold(t)
	table.abandon(nil)
	if out := n.Nft("list", "table", "inet", nft.TableName); !strings.Contains(out, "flags owner") {
		t.Fatalf("control: the table has no owner while its socket is held:\n%s", out)
	}
	last.onOwner = sync.OnceFunc(func() {
		if err := unix.Close(held); err != nil {
			t.Error(err)
		}
	})
	mustApply(t, table, nft.Patch{})
	mustMatch(t, table)
	if !table.Owned() {
		t.Errorf("not claimed again: %s", table.WhyNotOwned())
	}
}

// TestCloseLeavesAnOrphan: whoever comes after Close can claim the table, also while a child that
// is being started holds the socket for a moment.
func TestCloseLeavesAnOrphan(t *testing.T) {
	t.Parallel()
	canOwn(t)
	n := newNamespace(t)
	var last holder
	table := n.openOver(every(last.wrap), Options{Own: true})
	mustSync(t, table, everything())
	held := last.hold(t)
	waited := false
	last.onOwner = sync.OnceFunc(func() {
		waited = true
		if err := unix.Close(held); err != nil {
			t.Error(err)
		}
	})
	if err := table.Close(); err != nil || !waited {
		t.Errorf("closed with %v; waited: %t", err, waited)
	}
	mustSync(t, n.open(Options{Own: true}), everything())

	table = newNamespace(t).openOver(every(last.wrap), Options{Own: true})
	mustSync(t, table, nft.NewRuleset())
	table.opts.FlushTimeout = 50 * time.Millisecond
	held = last.hold(t)
	if err := table.Close(); err == nil ||
		!strings.Contains(err.Error(), "still owns table sluice") {
		t.Errorf("closed with %v while the socket is held", err)
	}
	if err := unix.Close(held); err != nil {
		t.Error(err)
	}
}

// TestListingOfOrphan: nft lists a table without its owner so that it reads it back; nft 1.0, which
// doesn't know the flag persist, if its empty line of flags is taken out.
func TestListingOfOrphan(t *testing.T) {
	t.Parallel()
	canOwn(t)
	n := newNamespace(t)
	table := n.open(Options{Own: true})
	mustSync(t, table, everything())
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	listing := n.Nft("list", "table", "inet", nft.TableName)
	const noFlags = "\tflags \n"
	if isNFT11(n.Namespace) {
		if !strings.Contains(listing, "flags persist") {
			t.Errorf("nft 1.1 doesn't list persist:\n%s", listing)
		}
	} else if out, err := n.Try(listing, "-c", "-f", "-"); err == nil ||
		!strings.Contains(listing, noFlags) {
		t.Errorf("nft 1.0 reads it back: %v: %s", err, out)
	}
	newNamespace(t).MustParse(strings.Replace(listing, noFlags, "", 1)) // where it isn't yet
}

// Owned reports whether nobody but this Table can change the table at the moment.
func (t *Table) Owned() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.own.ours && t.conn != nil
}
