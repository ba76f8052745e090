package server

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/test/cnitest"
)

// TestExhaustionIsReportedOnce: and again after there was an address.
func TestExhaustionIsReportedOnce(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var told []string
	a := newAgent(t, func(o *Options) {
		o.OnProblem = func(reason, message string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, reason+": "+message)
		}
	})
	a.server.SetPodCIDRs(cnitest.Prefixes("10.2.0.0/30"))
	expect := func(want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	}
	const full = "AddressPoolExhausted: no free address in 10.2.0.0/30: 2 of 2 in use"
	a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	a.MustAdd(cnitest.RequestFor("c2", "pod-b"))
	expect()
	for range 3 {
		if _, err := a.Add(cnitest.RequestFor("c3", "pod-c")); err == nil {
			t.Fatal("there was an address")
		}
		expect(full)
	}
	want := Stats{Attachments: 2,
		Pools: []PoolStats{{Prefix: cnitest.Prefixes("10.2.0.0/30")[0], Size: 2, InUse: 2}}}
	if diff := cmp.Diff(want, a.server.Stats(), cmp.Comparer(samePrefix)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	a.MustDel(cnitest.RequestFor("c1", "pod-a"))
	a.Settle()
	want = Stats{Attachments: 1,
		Pools: []PoolStats{{Prefix: cnitest.Prefixes("10.2.0.0/30")[0], Size: 2, InUse: 1,
			Cooling: 1}}}
	if diff := cmp.Diff(want, a.server.Stats(), cmp.Comparer(samePrefix)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	a.Clock.Advance(defaultCoolDown)
	a.MustAdd(cnitest.RequestFor("c3", "pod-c"))
	if _, err := a.Add(cnitest.RequestFor("c4", "pod-d")); err == nil {
		t.Fatal("there was an address")
	}
	expect(full, full)
}

func TestStatsOfLargePools(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{
		"10.0.0.0/8": 1<<24 - 2, "10.1.0.0/24": 254, "10.1.0.0/31": 0, "10.1.0.0/32": 0,
		"fd00::/64": 1<<64 - 1, "fd00::/65": 1<<63 - 1, "fd00::/120": 255, "fd00::/128": 0,
	} {
		if got := poolSize(cnitest.Prefixes(text)[0]); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}
