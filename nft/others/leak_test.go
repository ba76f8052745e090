package others

import (
	"os"
	"runtime/debug"
	"testing"

	"github.com/sluice-net/sluice/test/testnet"
)

// Not parallel: it looks at the whole process, and tests that are parallel wait until it is done.
func TestNothingStaysOpen(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the collector closes forgotten files
	t.Run("warm up", useEverything)                  // the runtime opens things once
	before := openFiles(t)
	t.Run("again", useEverything)
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, %d were before", after, before)
	}
}

func useEverything(t *testing.T) {
	w := world{t: t, node: testnet.NewNode(t)}
	w.run("iptables-legacy", "-P", "FORWARD", "DROP")
	w.install(
		`table ip6 filter { chain FORWARD { type filter hook forward priority 0; policy drop; } }`)
	if got := w.try(brief); got != (Result{Blocked, Blocked}) {
		t.Errorf("control: %v", got)
	}
	if got := w.blockers(Forward); len(got) != 2 {
		t.Errorf("control: %v", got)
	}
	w.mustEnsure(&Accepter{}, true, networks...)
	if got := w.try(patient); got != (Result{Passed, Passed}) {
		t.Errorf("accepted: %v", got)
	}
	w.bypassing(networks, "")
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
