package cni

import (
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestClockJumps: setting the node's clock by an hour between two agents neither ends nor lengthens an address's rest. What the next
// agent can see of it is that every time of the wall clock in the state directory is by an hour older, or is to come.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{"ahead": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAgent(t, func(o *ServerOptions) { o.Now, o.CoolDown = nil, 30*time.Minute })
			a.server.SetPodCIDRs(prefixes("10.1.0.0/29"))
			a.mustAdd(requestFor("c1", "pod-a"))
			a.mustDel(requestFor("c1", "pod-a"))
			a.expect()
			if got := a.cooling(); got != 1 {
				t.Fatalf("%d addresses cool down, want 1", got)
			}
			before := maps.Clone(a.server.addresses.cooling)
			a.stop()
			a.shiftWallClock(-jump)
			a.start()
			a.server.SetPodCIDRs(prefixes("10.1.0.0/29"))
			if got := a.cooling(); got != 1 {
				t.Errorf("after the restart %d addresses cool down, want 1", got)
			}
			var up unix.Sysinfo_t
			if err := unix.Sysinfo(&up); err != nil {
				t.Fatal(err)
			}
			for addr, freed := range before {
				if freed.Seconds() > float64(up.Uptime+1) {
					t.Errorf("%s was freed at %s, but the machine runs for %d s: this is a clock that can be set", addr, freed, up.Uptime)
				}
			}
			if after := a.server.addresses.cooling; !maps.Equal(before, after) {
				t.Errorf("freed at %v, after the restart at %v", before, after)
			}
		})
	}
}

func (a *testAgent) cooling() uint64 { return a.server.Stats().Pools[0].Cooling }

// shiftWallClock changes all times of the wall clock in the ledger.
func (a *testAgent) shiftWallClock(by time.Duration) {
	a.t.Helper()
	path := a.server.records.ledgerPath()
	text, err := os.ReadFile(path)
	if err != nil {
		a.t.Fatal(err)
	}
	shifted := regexp.MustCompile(`"\d{4}-\d\d-\d\dT[^"]*"`).ReplaceAllStringFunc(string(text), func(stamp string) string {
		was, err := time.Parse(`"`+time.RFC3339Nano+`"`, stamp)
		if err != nil {
			a.t.Fatal(err)
		}
		return was.Add(by).Format(`"` + time.RFC3339Nano + `"`)
	})
	if err := os.WriteFile(path, []byte(shifted), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// TestUpgradeOfLedger: what cooled down before an upgrade, or a downgrade, does so once more.
func TestUpgradeOfLedger(t *testing.T) {
	t.Parallel()
	const older = `{"bootID":"BOOT","last":["10.1.0.3"],"taken":["10.1.0.1"],"cooling":{"10.1.0.2":"2001-01-01T00:00:00Z","10.1.0.3":"9999-01-01T00:00:00Z"}}`
	r := newRecords(t)
	write(strings.ReplaceAll(older, "BOOT", r.bootID))(t, r.ledgerPath())
	l, err := r.readLedger()
	if err != nil {
		t.Fatal(err)
	}
	p := newPool("10.1.0.0/29")
	p.restore(l, noon)
	want := map[netip.Addr]time.Duration{}
	for _, addr := range addrs("10.1.0.1", "10.1.0.2", "10.1.0.3") {
		want[addr] = noon
	}
	if diff := cmp.Diff(want, p.cooling, cmp.Comparer(sameAddr)); diff != "" {
		t.Errorf("freed, as of an older agent's ledger (-want +got):\n%s", diff)
	}

	// As the agent before Freed reads it: what is taken, and is no attachment's, cools down from its start.
	var read struct {
		Last, Taken []netip.Addr
		Cooling     map[netip.Addr]time.Time
	}
	text, err := json.Marshal(p.ledger())
	if err == nil {
		err = json.Unmarshal(text, &read)
	}
	if err != nil || !slices.Equal(read.Taken, addrs("10.1.0.1", "10.1.0.2", "10.1.0.3")) || len(read.Cooling) > 0 {
		t.Errorf("an older agent reads %+v and %v in %s", read, err, text)
	}
}

// TestTimesThatSayNothing: a time of another boot, of an unknown one, or that can't be, is none.
func TestTimesThatSayNothing(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	addr := addrs("10.1.0.1")[0]
	for name, l := range map[string]ledger{
		"of another boot":   {BootID: "another", Taken: []netip.Addr{addr}, Freed: map[netip.Addr]time.Duration{addr: 1}},
		"of nobody knows":   {Taken: []netip.Addr{addr}, Freed: map[netip.Addr]time.Duration{addr: 1}},
		"of the future":     {BootID: r.bootID, Freed: map[netip.Addr]time.Duration{addr: noon + 1}},
		"of before it all":  {BootID: r.bootID, Freed: map[netip.Addr]time.Duration{addr: -1}},
		"of long before it": {BootID: r.bootID, Freed: map[netip.Addr]time.Duration{addr: -1 << 63}},
	} {
		if err := writeJSON(r.ledgerPath(), l); err != nil {
			t.Fatal(err)
		}
		got, err := r.readLedger()
		if err != nil {
			t.Fatal(err)
		}
		p := newPool("10.1.0.0/30")
		p.restore(got, noon)
		if p.cooling[addr] != noon {
			t.Errorf("%s: freed at %s, want the time of the restart", name, p.cooling[addr])
		}
	}
}

// TestUnreadableLedger: where nobody knows what cools down, everything does.
func TestUnreadableLedger(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	kept := a.mustAdd(requestFor("c1", "pod-a"))
	a.stop()
	write(`{"last":["10.1.`)(t, a.server.records.ledgerPath())
	a.start()
	if again := a.mustAdd(requestFor("c1", "pod-a")); addressText(again.Addresses) != addressText(kept.Addresses) {
		t.Errorf("a pod that runs had %v, and has %v", kept.Addresses, again.Addresses)
	}
	_, err := a.add(requestFor("c2", "pod-b"))
	mustFail(t, err, types.ErrTryAgainLater, "no address for the pod; every address rests", "for 1m0s more")
	a.clock.advance(defaultCoolDown)
	a.mustAdd(requestFor("c2", "pod-b"))
}
