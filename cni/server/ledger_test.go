package server

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

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

// TestClockJumps: setting the node's clock by an hour between two agents neither ends nor lengthens
// an address's rest. What the next agent can see of it is that every time of the wall clock in the
// state directory is by an hour older, or is to come.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{"ahead": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAgent(t, func(o *Options) { o.Now, o.CoolDown = nil, 30*time.Minute })
			a.server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/29"))
			a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
			a.MustDel(cnitest.RequestFor("c1", "pod-a"))
			a.Expect()
			if got := a.cooling(); got != 1 {
				t.Fatalf("%d addresses cool down, want 1", got)
			}
			before := maps.Clone(a.server.addresses.cooling)
			a.Stop()
			a.shiftWallClock(-jump)
			a.Start()
			a.server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/29"))
			if got := a.cooling(); got != 1 {
				t.Errorf("after the restart %d addresses cool down, want 1", got)
			}
			var up unix.Sysinfo_t
			if err := unix.Sysinfo(&up); err != nil {
				t.Fatal(err)
			}
			for addr, freed := range before {
				if freed.Seconds() > float64(up.Uptime+1) {
					t.Errorf("%s was freed at %s, but the machine runs for %d s: this is a clock "+
						"that can be set", addr, freed, up.Uptime)
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
	a.T.Helper()
	path := a.server.records.LedgerPath()
	text, err := os.ReadFile(path)
	if err != nil {
		a.T.Fatal(err)
	}
	shifted := regexp.MustCompile(`"\d{4}-\d\d-\d\dT[^"]*"`).
		ReplaceAllStringFunc(string(text), func(stamp string) string {
			was, err := time.Parse(`"`+time.RFC3339Nano+`"`, stamp)
			if err != nil {
				a.T.Fatal(err)
			}
			return was.Add(by).Format(`"` + time.RFC3339Nano + `"`)
		})
	if err := os.WriteFile(path, []byte(shifted), 0o600); err != nil {
		a.T.Fatal(err)
	}
}

// TestUpgradeOfLedger: what cooled down before an upgrade, or a downgrade, does so once more.
func TestUpgradeOfLedger(t *testing.T) {
	t.Parallel()
	const older = `{"bootID":"BOOT","last":["10.1.0.3"],"taken":["10.1.0.1"],"cooling":{"10.1.0.2":"2001-01-01T00:00:00Z","10.1.0.3":"9999-01-01T00:00:00Z"}}`
	r := cnitest.NewRecords(t)
	cnitest.WriteFile(strings.ReplaceAll(older, "BOOT", r.BootID))(t, r.LedgerPath())
	l, err := r.ReadLedger()
	if err != nil {
		t.Fatal(err)
	}
	p := newPool("10.1.0.0/29")
	p.restore(l, cnitest.Noon)
	want := map[netip.Addr]time.Duration{}
	for _, addr := range cnitest.Addrs("10.1.0.1", "10.1.0.2", "10.1.0.3") {
		want[addr] = cnitest.Noon
	}
	if diff := cmp.Diff(want, p.cooling, cmp.Comparer(cnitest.SameAddr)); diff != "" {
		t.Errorf("freed, as of an older agent's ledger (-want +got):\n%s", diff)
	}

	// As the agent before Freed reads it: what is taken, and is no attachment's, cools down from
	// its start.
	var read struct {
		Last, Taken []netip.Addr
		Cooling     map[netip.Addr]time.Time
	}
	text, err := json.Marshal(p.ledger())
	if err == nil {
		err = json.Unmarshal(text, &read)
	}
	if err != nil || !slices.Equal(read.Taken, cnitest.Addrs("10.1.0.1", "10.1.0.2", "10.1.0.3")) ||
		len(read.Cooling) > 0 {
		t.Errorf("an older agent reads %+v and %v in %s", read, err, text)
	}
}

// TestTimesThatSayNothing: a time of another boot, of an unknown one, or that can't be, is none.
func TestTimesThatSayNothing(t *testing.T) {
	t.Parallel()
	r := cnitest.NewRecords(t)
	addr := cnitest.Addrs("10.1.0.1")[0]
	for name, l := range map[string]cni.Ledger{
		"of another boot": {BootID: "another", Taken: []netip.Addr{addr},
			Freed: map[netip.Addr]time.Duration{addr: 1}},
		"of nobody knows": {Taken: []netip.Addr{addr},
			Freed: map[netip.Addr]time.Duration{addr: 1}},
		"of the future": {BootID: r.BootID,
			Freed: map[netip.Addr]time.Duration{addr: cnitest.Noon + 1}},
		"of before it all": {BootID: r.BootID, Freed: map[netip.Addr]time.Duration{addr: -1}},
		"of long before it": {BootID: r.BootID,
			Freed: map[netip.Addr]time.Duration{addr: -1 << 63}},
	} {
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		cnitest.WriteFile(string(text))(t, r.LedgerPath())
		got, err := r.ReadLedger()
		if err != nil {
			t.Fatal(err)
		}
		p := newPool("10.1.0.0/30")
		p.restore(got, cnitest.Noon)
		if p.cooling[addr] != cnitest.Noon {
			t.Errorf("%s: freed at %s, want the time of the restart", name, p.cooling[addr])
		}
	}
}

// TestUnreadableLedger: where nobody knows what cools down, everything does.
func TestUnreadableLedger(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	kept := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	a.Stop()
	cnitest.WriteFile(`{"last":["10.1.`)(t, a.server.records.LedgerPath())
	a.Start()
	again := a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	if cnitest.AddressText(again.Addresses) != cnitest.AddressText(kept.Addresses) {
		t.Errorf("a pod that runs had %v, and has %v", kept.Addresses, again.Addresses)
	}
	_, err := a.Add(cnitest.RequestFor("c2", "pod-b"))
	cnitest.MustFail(t, err, types.ErrTryAgainLater, "no address for the pod; every address rests",
		"for 1m0s more")
	a.Clock.Advance(defaultCoolDown)
	a.MustAdd(cnitest.RequestFor("c2", "pod-b"))
}
