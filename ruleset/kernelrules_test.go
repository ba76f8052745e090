package ruleset_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/randomcluster"
	"github.com/sluice-net/sluice/test/ruleworld"
)

// TestWhatKernelsGetWrong holds the plans of random events to the rules by which bugs of kernels
// are avoided (docs/kernels.md). A set of several fields with ranges has the ports first, gets its
// elements in the transactions that make it, and never changes. No set at all is deleted and made
// anew in one transaction. There are no timeouts: no operation of nft can say one.
func TestWhatKernelsGetWrong(t *testing.T) {
	t.Parallel()
	edits := 0
	rapid.Check(t, func(t *rapid.T) {
		world := cluster.Options{Node: "n1", PolicyOnly: rapid.Bool().Draw(t, "policy only")}
		c, w := cluster.New(world), randomcluster.NewWorld(world)
		cfg := ruleset.Config{}
		if rapid.Bool().Draw(t, "network") {
			cfg.Network = ruleworld.DrawNetwork(t)
		}
		r := ruleset.NewRenderer(cfg)
		first := r.Ruleset(c)
		have := nft.NewRuleset()
		apply := func(p nft.Patch) {
			b := nft.Plan(have, p)
			for _, transaction := range [][]nft.Op{b.Prepare, b.Switch, b.Finish} {
				edits += checkTransaction(t, have, transaction)
			}
			have.Merge(p)
		}
		apply(nft.Diff(have, first))
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			w.Event(t, c)
			if cfg.Network.Enabled() && rapid.Bool().Draw(t, "changed") {
				cfg.Network = ruleworld.DrawNetwork(t)
				r.SetNetwork(cfg.Network, cfg.PodRanges)
			}
			if rapid.IntRange(0, 3).Draw(t, "render") == 0 {
				apply(r.Patch(c, c.Take()))
			}
		}
		apply(r.Patch(c, c.Take()))
	})
	if edits < 100 {
		t.Errorf("only %d edits of sets were seen", edits)
	}
}

// checkTransaction returns how many edits of sets it has seen.
func checkTransaction(t *rapid.T, have *nft.Ruleset, ops []nft.Op) (edits int) {
	made := map[string]bool{}
	for _, op := range ops {
		if op.Set == nil {
			continue
		}
		s := op.Set
		severalRanges := s.Interval && len(s.Key) > 1
		if op.Kind == nft.AddSet {
			made[s.Name] = true
			if have.Sets[s.Name] != nil {
				t.Fatalf("%s is deleted and made anew in one transaction", s.Name)
			}
			if severalRanges && s.Key[0] != nft.DstPort {
				t.Fatalf("%s has ranges in %v: the field with the most masks isn't the first",
					s.Name, s.Key)
			}
		}
		if op.Kind == nft.SetElements {
			edits++
			if severalRanges && (!made[s.Name] || len(op.Leave) > 0) {
				t.Fatalf("%s is changed: %v", s.Name, op)
			}
		}
	}
	return edits
}
