package enforcer

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/sluice-net/sluice/nft/table"
)

// slowRuleset keeps the kernel busy for a second or so, in one transaction: it finds each set by
// reading all of them.
func slowRuleset() string {
	var sets, rules strings.Builder
	for i := range 4000 {
		fmt.Fprintf(&sets, "set s%d { type ipv4_addr; }\n", i)
		fmt.Fprintf(&rules, "ip saddr @s%d accept\n", i)
	}
	return "table inet slow {\n" + sets.String() + "chain c {\n" + rules.String() + "}\n}\n"
}

// TestOverdueTransaction: while another program's transaction keeps the kernel busy for longer than
// ours may take, ADD and DEL wait; when it is over they succeed, and the node is whole.
func TestOverdueTransaction(t *testing.T) {
	t.Parallel()
	w := newEnforcerWorld(t, table.Options{FlushTimeout: 60 * time.Millisecond})
	var overdue atomic.Bool
	w.e.opts.Log = funcr.New(func(_, args string) {
		if strings.Contains(args, "Writing the ruleset failed") {
			overdue.Store(true)
		}
	}, funcr.Options{})
	w.run()
	for range 10 {
		loaded := make(chan struct{})
		go func() {
			defer close(loaded)
			w.Node.NftInput(slowRuleset())
		}()
		busy := true
		for busy {
			if err := w.reattach("dev/web"); err != nil {
				t.Fatal(err)
			}
			select {
			case <-loaded:
				busy = false
			default:
			}
		}
		w.Node.Nft("delete", "table", "inet", "slow")
		if overdue.Load() {
			break
		}
	}
	if !overdue.Load() {
		t.Error("control: no transaction of ours was overdue")
	}
	w.Allowed(slices.Concat(dbByPod, rest)...)
	w.Denied(dbDenied...)
	if differences, err := w.Table.Check(t.Context()); err != nil || len(differences) > 0 {
		t.Errorf("%q, %v", differences, err)
	}
}
