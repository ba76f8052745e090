package server

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

const testCoolDown = time.Minute

func newPool(texts ...string) *allocator {
	p := newAllocator(testCoolDown)
	p.setPrefixes(cnitest.Prefixes(texts...))
	return p
}

func TestAllocateInOrder(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cidrs []string
		want  []string // each the addresses of one pod
		last  string   // of the error after these; empty: there are more
	}{
		"IPv4": {[]string{"10.1.0.0/29"},
			[]string{"10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"},
			"no free address in 10.1.0.0/29: 6 of 6 in use"},
		"IPv6, no broadcast": {[]string{"fd00::/126"},
			[]string{"fd00::1", "fd00::2", "fd00::3"},
			"no free address in fd00::/126: 3 of 3 in use"},
		"both, in this order": {[]string{"fd00::/64", "10.1.0.0/30"},
			[]string{"fd00::1 10.1.0.1", "fd00::2 10.1.0.2"},
			"no free address in 10.1.0.0/30: 2 of 2 in use"},
		"host bits": {[]string{"10.1.0.9/30"}, []string{"10.1.0.9", "10.1.0.10"},
			"no free address in 10.1.0.8/30: 2 of 2 in use"},
		"first of a family": {[]string{"10.1.0.0/30", "10.2.0.0/30"},
			[]string{"10.1.0.1", "10.1.0.2"}, "no free address in 10.1.0.0/30: 2 of 2 in use"},
		"the end of all addresses": {[]string{"255.255.255.252/30"},
			[]string{"255.255.255.253", "255.255.255.254"},
			"no free address in 255.255.255.252/30: 2 of 2 in use"},
		"the end of all IPv6": {[]string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"},
			[]string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}, "no free address in"},
		"large": {[]string{"10.0.0.0/8"}, []string{"10.0.0.1", "10.0.0.2"}, ""},
		"no room: /31": {
			[]string{"10.1.0.0/31"}, nil, "no free address in 10.1.0.0/31: 0 of 0 in use"},
		"no room: /32": {
			[]string{"10.1.0.0/32"}, nil, "no free address in 10.1.0.0/32: 0 of 0 in use"},
		"no room: /128": {
			[]string{"fd00::/128"}, nil, "no free address in fd00::/128: 0 of 0 in use"},
		"no podCIDR":                   {nil, nil, "no podCIDR"},
		"an IPv4-mapped prefix is not": {[]string{"::ffff:10.1.0.0/120"}, nil, "no podCIDR"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(c.cidrs...)
			for i, want := range c.want {
				got, err := p.allocate(cnitest.Noon)
				if err != nil {
					t.Fatalf("pod %d: %v", i, err)
				}
				diff := cmp.Diff(cnitest.Addrs(strings.Fields(want)...), got,
					cmp.Comparer(cnitest.SameAddr))
				if diff != "" {
					t.Fatalf("pod %d (-want +got):\n%s", i, diff)
				}
			}
			got, err := p.allocate(cnitest.Noon)
			if c.last == "" && err != nil ||
				c.last != "" && (err == nil || !strings.Contains(err.Error(), c.last)) {
				t.Errorf("then got %v and %v, want the error %q", got, err, c.last)
			}
		})
	}
}

func TestExhaustionSaysHowLong(t *testing.T) {
	t.Parallel()
	p := newPool("10.1.0.0/29")
	var all []netip.Addr
	for range 6 {
		got, err := p.allocate(cnitest.Noon)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got...)
	}
	p.release(all[0], cnitest.Noon+10*time.Second)
	p.release(all[1], cnitest.Noon+20*time.Second)
	p.giveBack(all[2])
	if got, err := p.allocate(cnitest.Noon + 30*time.Second); err != nil || got[0] != all[2] {
		t.Errorf("got %v and %v, want %s at once, as nobody used it", got, err, all[2])
	}
	_, err := p.allocate(cnitest.Noon + 30*time.Second)
	const want = "no free address in 10.1.0.0/29: 6 of 6 in use or cooling down, the first of 2 " +
		"that cool down for 40s more"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if got, err := p.allocate(cnitest.Noon + 70*time.Second); err != nil || got[0] != all[0] {
		t.Errorf("got %v and %v, want %s once it is cool", got, err, all[0])
	}
}

func TestOneFamilyExhaustedTakesNothing(t *testing.T) {
	t.Parallel()
	p := newPool("fd00::/64", "10.1.0.0/30")
	for range 2 {
		if _, err := p.allocate(cnitest.Noon); err != nil {
			t.Fatal(err)
		}
	}
	before := p.ledger()
	if _, err := p.allocate(cnitest.Noon); err == nil {
		t.Fatal("a third IPv4 address in a /30")
	}
	if diff := cmp.Diff(before, p.ledger(), cmp.Comparer(cnitest.SameAddr)); diff != "" {
		t.Errorf("a failed allocation changed the ledger:\n%s", diff)
	}
}

func TestRestore(t *testing.T) {
	t.Parallel()
	p := newPool("10.1.0.0/29")
	for range 4 {
		if _, err := p.allocate(cnitest.Noon); err != nil {
			t.Fatal(err)
		}
	}
	p.release(netip.MustParseAddr("10.1.0.1"), cnitest.Noon)
	later := cnitest.Noon + 30*time.Second

	// Of .2, .3 and .4, which were taken, only .3 still has a record.
	q := newPool("10.1.0.0/29")
	q.restore(p.ledger(), later)
	q.claim(netip.MustParseAddr("10.1.0.3"))
	restored := q.ledger()
	for addr, free := range map[string]time.Duration{
		"10.1.0.1": cnitest.Noon + testCoolDown,
		"10.1.0.2": later + testCoolDown,
		"10.1.0.4": later + testCoolDown,
	} {
		for at, want := range map[time.Duration]bool{free: true, free - 1: false} {
			r := newPool("10.1.0.0/29")
			r.restore(restored, later)
			r.claim(netip.MustParseAddr("10.1.0.3"))
			if got := givesAt(r, at, netip.MustParseAddr(addr)); got != want {
				t.Errorf("%s given after %s: %t, want %t", addr, at-cnitest.Noon, got, want)
			}
		}
	}
	if got, err := q.allocate(later); err != nil || got[0].String() != "10.1.0.5" {
		t.Errorf("got %v and %v, want the one after the last given", got, err)
	}

	// A time that is none of this clock doesn't lengthen the wait beyond the cool-down.
	q = newPool("10.1.0.0/30")
	q.restore(
		cni.Ledger{Freed: map[netip.Addr]time.Duration{
			netip.MustParseAddr("10.1.0.1"): cnitest.Noon + time.Hour}}, cnitest.Noon)
	q.claim(netip.MustParseAddr("10.1.0.2"))
	if !givesAt(q, cnitest.Noon+testCoolDown, netip.MustParseAddr("10.1.0.1")) {
		t.Error("an address is still cooling down one cool-down after the restart")
	}
}

// givesAt tells whether addr is among all that p can give at that time.
func givesAt(p *allocator, at time.Duration, addr netip.Addr) bool {
	for {
		got, err := p.allocate(at)
		if err != nil {
			return false
		}
		if slices.Contains(got, addr) {
			return true
		}
	}
}

// TestAllocatorProperties holds an allocator, through restarts, against a list of who has what.
func TestAllocatorProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		bits4, bits6 := rapid.IntRange(26, 31).Draw(t, "bits4"),
			rapid.IntRange(122, 127).Draw(t, "bits6")
		m := &poolModel{
			pool: newPool(fmt.Sprintf("10.1.0.0/%d", bits4), fmt.Sprintf("fd00::/%d", bits6)),
			now:  cnitest.Noon,
			size: min(max(0, 1<<(32-bits4)-2), 1<<(128-bits6)-1),
			// What bounds the number of pods is the smaller of both.
			alive: map[string][]netip.Addr{}, freed: map[netip.Addr]time.Duration{},
		}
		t.Repeat(map[string]func(*rapid.T){
			"allocate": m.allocate,
			"release":  m.release,
			"giveBack": m.giveBack,
			"wait": func(t *rapid.T) {
				m.now += time.Duration(rapid.IntRange(1, 70).Draw(t, "seconds")) * time.Second
			},
			"restart": func(*rapid.T) {
				q := newAllocator(testCoolDown)
				q.setPrefixes(m.pool.prefixes)
				q.restore(m.pool.ledger(), m.now)
				for _, addrs := range m.alive {
					for _, addr := range addrs {
						q.claim(addr)
					}
				}
				m.pool = q
			},
		})
	})
}

type poolModel struct {
	pool  *allocator
	now   time.Duration
	size  int // pods
	count int
	alive map[string][]netip.Addr
	freed map[netip.Addr]time.Duration
}

func (m *poolModel) allocate(t *rapid.T) {
	got, err := m.pool.allocate(m.now)
	if err != nil {
		if m.freeIn(m.pool.prefixes[0]) > 0 && m.freeIn(m.pool.prefixes[1]) > 0 {
			t.Fatalf("exhausted with free addresses: %v", err)
		}
		return
	}
	for i, addr := range got {
		prefix := m.pool.prefixes[i]
		if !prefix.Contains(addr) || addr == prefix.Addr() ||
			addr.Is4() && !prefix.Contains(addr.Next()) {
			t.Fatalf("gave %s of %s", addr, prefix)
		}
		for pod, others := range m.alive {
			if slices.Contains(others, addr) {
				t.Fatalf("gave %s, which %s has", addr, pod)
			}
		}
		if since, ok := m.freed[addr]; ok && m.now-since < testCoolDown {
			t.Fatalf("gave %s %s after it was freed", addr, m.now-since)
		}
	}
	if len(got) != 2 || len(m.alive) >= m.size {
		t.Fatalf("gave %v to pod number %d of %d", got, len(m.alive)+1, m.size)
	}
	m.count++
	m.alive[fmt.Sprint("pod-", m.count)] = got
}

func (m *poolModel) freeIn(prefix netip.Prefix) int {
	free := 0
	for addr := prefix.Addr().Next(); prefix.Contains(addr); addr = addr.Next() {
		since, wasFreed := m.freed[addr]
		isTaken := slices.ContainsFunc(slices.Collect(maps.Values(m.alive)),
			func(a []netip.Addr) bool { return slices.Contains(a, addr) })
		isBroadcast := addr.Is4() && !prefix.Contains(addr.Next())
		if !isTaken && !isBroadcast && (!wasFreed || m.now-since >= testCoolDown) {
			free++
		}
	}
	return free
}

func (m *poolModel) pick(t *rapid.T) string {
	if len(m.alive) == 0 {
		t.Skip("no pod")
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m.alive))).Draw(t, "pod")
}

func (m *poolModel) release(t *rapid.T) {
	pod := m.pick(t)
	for _, addr := range m.alive[pod] {
		m.pool.release(addr, m.now)
		m.freed[addr] = m.now
	}
	delete(m.alive, pod)
}

func (m *poolModel) giveBack(t *rapid.T) {
	pod := m.pick(t)
	for _, addr := range m.alive[pod] {
		m.pool.giveBack(addr)
		delete(m.freed, addr)
	}
	delete(m.alive, pod)
}

func TestErrNoPodCIDRIsKnown(t *testing.T) {
	t.Parallel()
	if _, err := newPool().allocate(cnitest.Noon); !errors.Is(err, errNoPodCIDR) {
		t.Errorf("got %v, want %v", err, errNoPodCIDR)
	}
}
