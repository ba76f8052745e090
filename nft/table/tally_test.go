package table

import (
	"fmt"
	"maps"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/stretch"
)

// tallied is a ruleset whose input chain counts in n chains.
func tallied(chains ...string) *nft.Ruleset {
	r := nft.NewRuleset()
	in := r.AddChain(&nft.Chain{Name: "input/1",
		Base: &nft.Base{Hook: nft.HookInput, Priority: -1}})
	for _, name := range chains {
		r.AddChain(&nft.Chain{Name: name, Rules: []nft.Rule{rule(nft.Count{})}})
		in.Rules = append(in.Rules,
			rule(nft.MatchPort{Proto: 17, First: 9, Last: 9}, nft.Do{Verdict: nft.JumpTo(name)}))
	}
	return r
}

// sendLocally sends datagrams of 1 byte over the loopback, each of which has arrived when it
// returns.
func (n *namespace) sendLocally(count int) {
	n.Helper()
	if err := n.NS.Do(func(ns.NetNS) error {
		//nolint:noctx // it ends by itself
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			return fmt.Errorf("ip: %w: %s", err, out)
		}
		server, err := net.ListenPacket("udp", "127.0.0.1:9") //nolint:noctx // likewise
		if err != nil {
			return err
		}
		defer server.Close()
		c, err := net.Dial("udp", "127.0.0.1:9") //nolint:noctx // likewise
		if err != nil {
			return err
		}
		defer c.Close()
		for range count {
			if _, err := c.Write([]byte{0}); err != nil {
				return err
			}
			deadline := time.Now().Add(stretch.By(20 * time.Second))
			if err := server.SetReadDeadline(deadline); err != nil {
				return err
			}
			if _, _, err := server.ReadFrom(make([]byte, 1)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		n.Fatal(err)
	}
}

func mustTally(t *testing.T, table *Table) (now, ended map[string]nft.Tally) {
	t.Helper()
	now, ended, err := table.Tally(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return now, ended
}

// TestTally: counters of chains that stay are read, and those of chains that go are told once;
// others' aren't.
func TestTally(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{Tallied: "kept/"})
	if now, ended := mustTally(t, table); len(now)+len(ended) != 0 {
		t.Errorf("without a table: %v, %v", now, ended)
	}
	mustSync(t, table, tallied("kept/a", "kept/b", "other/c"))
	n.sendLocally(10)
	now, ended := mustTally(t, table)
	const size = 20 + 8 + 1
	if len(now) != 2 || now["kept/a"] != (nft.Tally{Packets: 10, Bytes: 10 * size}) ||
		now["kept/a"] != now["kept/b"] || ended != nil {
		t.Fatalf("%v, %v", now, ended)
	}
	before := now["kept/b"]
	mustSync(t, table, tallied("kept/a", "other/c"))
	if ended := table.TakeEnded(); !maps.Equal(ended, map[string]nft.Tally{"kept/b": before}) {
		t.Errorf("deleted: %v, want %v", ended, before)
	}
	if _, ended := mustTally(t, table); ended != nil {
		t.Errorf("told again: %v", ended)
	}
	mustSync(t, table, tallied("kept/b")) // made again, and the other one goes
	if now, ended := mustTally(t, table); now["kept/b"] != (nft.Tally{}) ||
		ended["kept/a"] != before {
		t.Errorf("made again: %v, %v", now, ended)
	}
}

// TestTallyOfADeletionThatFails: a value that was read for a deletion counts once, whether the
// deletion turns out to have happened or not.
func TestTallyOfADeletionThatFails(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{Tallied: "kept/"})
	mustSync(t, table, tallied("kept/a", "kept/b"))
	n.sendLocally(3)
	before, _ := mustTally(t, table)
	if before["kept/a"].Packets != 3 {
		t.Fatalf("%v were counted, want 3 packets", before)
	}
	table.mu.Lock()
	ops := nft.Plan(table.desired, nft.Diff(table.desired, tallied())).Finish
	err := table.noteEnding(ops)
	table.mu.Unlock()
	if err != nil || !strings.Contains(fmt.Sprint(ops), "delete chain kept/b") {
		t.Fatalf("%v: %v", ops, err)
	}
	// One of them goes, in spite of the error that the transaction had.
	n.Nft("flush", "chain", "inet", "sluice", "input/1")
	n.Nft("delete", "chain", "inet", "sluice", "kept/b")
	now, ended := mustTally(t, table)
	if now["kept/a"] != before["kept/a"] ||
		!maps.Equal(ended, map[string]nft.Tally{"kept/b": before["kept/b"]}) {
		t.Errorf("now %v, ended %v, want them as of %v", now, ended, before)
	}
	mustSync(t, table, tallied())
	if ended := table.TakeEnded(); !maps.Equal(ended,
		map[string]nft.Tally{"kept/a": before["kept/a"]}) {
		t.Errorf("once it is deleted: %v, want %v", ended, before["kept/a"])
	}
}
