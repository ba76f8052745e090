package enforcer

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/testnet"
)

// dump is every entry of the node, one in a line, sorted, with all that the kernel says except
// timeouts. Accounting is off, so there are no counters.
func (w *cutWorld) dump() []string {
	w.T.Helper()
	var lines []string
	for _, family := range []string{"ipv4", "ipv6"} {
		err := w.Node.Do(func() error {
			//nolint:gosec,noctx // the test's own
			out, err := exec.Command("conntrack", "-L", "-f", family, "-o", "id,extended").Output()
			for line := range strings.Lines(string(out)) {
				words := strings.Fields(line) // ipv4 2 tcp 6 599 ESTABLISHED ...
				lines = append(lines, strings.Join(slices.Delete(words, 4, 5), " "))
			}
			return err
		})
		if err != nil {
			w.T.Fatal(err)
		}
	}
	slices.Sort(lines)
	return lines
}

// TestCutAmongMany: with 50,000 other connections on the node, those of one pod are cut for 50 ms
// of CPU and those of all for 500, and not one other changes. What a look costs is the CPU time of
// its thread, nearly all of it the kernel's, for walks through its table: two for a policy of one
// direction and a pod of two families.
func TestCutAmongMany(t *testing.T) {
	t.Parallel()
	const v4, v6 = 50_000, 1000
	const noise = 3 // a machine that others keep busy: their data push the table out of the caches
	w := newCutWorld(t, ruleset.Config{}, CutterOptions{}, nil)
	err := w.Node.Do(func() error { return testnet.Track(testnet.Crowd(v4, v6)...) })
	if err != nil {
		t.Fatal(err)
	}
	one := w.openAll(7000, flowsOf{{"dev/web", "dev/db"}, {"out", "dev/db"}}...)
	rest := w.openAll(7000,
		flowsOf{{"dev/web", "out"}, {"ops/probe", "prod/web"}, {"prod/web", "out2"}}...)
	mine := func(lines []string) []string {
		return slices.DeleteFunc(lines, func(l string) bool {
			return strings.Contains(l, "10.244.1.") || strings.Contains(l, "fd00:10:244")
		})
	}
	before := mine(w.dump())
	if len(before) != v4+v6 {
		t.Fatalf("%d other entries, want %d", len(before), v4+v6)
	}
	w.quiet()
	for _, step := range []struct {
		what     string
		policies map[string]string
		denied   []*connection
		limit    time.Duration
	}{
		{"one pod", map[string]string{"dev/p": denyDB}, one, 50 * time.Millisecond},
		{"every pod", map[string]string{
			"dev/all": denyAllEgress, "prod/all": denyAllEgress, "ops/all": denyAllEgress,
		}, rest, 500 * time.Millisecond},
	} {
		w.spent.Store(0)
		sweeps := w.sweeps.Load()
		w.policies(step.policies)
		for _, c := range step.denied {
			c.awaitCut()
		}
		w.quiet()
		n := w.sweeps.Load() - sweeps
		each := time.Duration(w.spent.Load()) / time.Duration(n)
		t.Logf("proof: %s: %d looks, %s of CPU each", step.what, n, each)
		if limit := step.limit * noise; each > limit {
			t.Errorf("%s: a look takes %s of CPU, want at most %s", step.what, each, limit)
		}
	}
	after := mine(w.dump())
	if !slices.Equal(before, after) {
		t.Errorf("other connections have changed: %d before, %d after", len(before), len(after))
	}
	for _, c := range rest {
		c.dead(c.client, c.server)
	}
	for _, e := range w.entries(nil) {
		mineToo := e.Orig.Src.Is4() && netip.MustParsePrefix("10.200.0.0/13").Contains(e.Orig.Src)
		if mineToo && e.Labels != [16]byte{} {
			t.Fatalf("another connection has label %x", e.Labels)
		}
	}
}

const denyAllEgress = `{podSelector: {}, policyTypes: [Egress]}`

// quiet waits until nothing is on the Cutter's agenda: two looks are over.
func (w *cutWorld) quiet() {
	w.T.Helper()
	n, since := w.sweeps.Load(), time.Now()
	w.eventually("no more looks", func() bool {
		if now := w.sweeps.Load(); now != n {
			n, since = now, time.Now()
		}
		return time.Since(since) > 2*lookAgain
	})
}
