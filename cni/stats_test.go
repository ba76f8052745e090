package cni

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestExhaustionIsReportedOnce: and again after there was an address.
func TestExhaustionIsReportedOnce(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var told []string
	a := newAgent(t, func(o *ServerOptions) {
		o.OnProblem = func(reason, message string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, reason+": "+message)
		}
	})
	a.server.SetPodCIDRs(prefixes("10.2.0.0/30"))
	expect := func(want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	}
	const full = "AddressPoolExhausted: no free address in 10.2.0.0/30: 2 of 2 in use"
	a.mustAdd(requestFor("c1", "pod-a"))
	a.mustAdd(requestFor("c2", "pod-b"))
	expect()
	for range 3 {
		if _, err := a.add(requestFor("c3", "pod-c")); err == nil {
			t.Fatal("there was an address")
		}
		expect(full)
	}
	want := Stats{Attachments: 2, Pools: []PoolStats{{Prefix: prefixes("10.2.0.0/30")[0], Size: 2, InUse: 2}}}
	if diff := cmp.Diff(want, a.server.Stats(), cmp.Comparer(samePrefix)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	a.mustDel(requestFor("c1", "pod-a"))
	a.settle()
	want = Stats{Attachments: 1, Pools: []PoolStats{{Prefix: prefixes("10.2.0.0/30")[0], Size: 2, InUse: 1, Cooling: 1}}}
	if diff := cmp.Diff(want, a.server.Stats(), cmp.Comparer(samePrefix)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	a.clock.advance(defaultCoolDown)
	a.mustAdd(requestFor("c3", "pod-c"))
	if _, err := a.add(requestFor("c4", "pod-d")); err == nil {
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
		if got := poolSize(prefixes(text)[0]); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}
