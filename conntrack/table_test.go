package conntrack

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/internal/attribute"
	"github.com/sluice-net/sluice/test/testnet"
)

const tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP

// in runs f on a thread in the node's namespace.
func in(t testing.TB, node *testnet.Node, f func() error) {
	t.Helper()
	if err := node.Do(f); err != nil {
		t.Fatal(err)
	}
}

// The kernel's filters find the same as looking at everything, so neither is used in vain.
func TestFindWithAndWithoutTheKernelsFilter(t *testing.T) {
	t.Parallel()
	pod := netip.MustParseAddr("10.1.0.2")
	flows := []testnet.Tracked{
		testnet.Plain(tcp, "10.1.0.2:1000", "198.51.100.1:80"),
		testnet.Plain(udp, "198.51.100.1:1000", "10.1.0.2:53"),
		testnet.Translated(tcp, "198.51.100.1:1000", "192.0.2.1:30080", "10.1.0.2:8080",
			"198.51.100.1:1000"),
		testnet.Translated(tcp, "10.1.0.2:1001", "198.51.100.1:80", "198.51.100.1:80",
			"192.0.2.1:40000"),
		testnet.Translated(udp, "198.51.100.1:7", "10.1.0.2:7", "198.51.100.2:7", "198.51.100.1:7"),
		testnet.Translated(udp, "198.51.100.1:8", "198.51.100.2:8", "198.51.100.2:8", "10.1.0.2:8"),
	}
	other := []testnet.Tracked{
		testnet.Plain(tcp, "10.1.0.20:1000", "198.51.100.1:80"),
		testnet.Plain(udp, "[fd00:1::2]:1000", "[2001:db8::1]:53"),
	}
	node := testnet.NewNode(t)
	in(t, node, func() error {
		if err := testnet.Track(slices.Concat(flows, other)...); err != nil {
			return err
		}
		table, err := Open()
		if err != nil {
			return err
		}
		defer table.Close()
		if n, err := table.count(); err != nil || n != len(flows)+len(other) {
			t.Errorf("counted %d (%v), want %d", n, err, len(flows)+len(other))
		}
		found := map[string]bool{}
		for _, q := range Anywhere(pod) {
			entries, err := table.list(q, func(*Entry) bool { return true })
			if err != nil {
				return err
			}
			if len(entries) == 0 || len(entries) > len(flows)-2 {
				t.Errorf("%+v finds %d entries", q, len(entries))
			}
			for _, c := range entries {
				found[string(c.name())] = true
			}
		}
		if len(found) != len(flows) {
			t.Errorf("the filters find %d entries, want %d", len(found), len(flows))
		}
		return nil
	})
}

// Entries are found by their IPv6 addresses, whatever this kernel's filter does; and it is used if
// and only if it finds what it should.
func TestFindByIPv6Address(t *testing.T) {
	t.Parallel()
	pod := netip.MustParseAddr("fd00:1::2")
	flows := []testnet.Tracked{
		testnet.Plain(tcp, "[fd00:1::2]:1000", "[2001:db8::1]:80"),
		testnet.Plain(udp, "[2001:db8::1]:1000", "[fd00:1::2]:53"),
		testnet.Translated(tcp, "[2001:db8::1]:1000", "[2001:db8::9]:30080", "[fd00:1::2]:8080",
			"[2001:db8::1]:1000"),
		testnet.Translated(udp, "[2001:db8::1]:8", "[2001:db8::2]:8", "[2001:db8::2]:8",
			"[fd00:1::2]:8"),
	}
	other := []testnet.Tracked{
		testnet.Plain(tcp, "[fd00:1::20]:1000", "[2001:db8::1]:80"),
		testnet.Plain(udp, "10.1.0.2:1000", "198.51.100.1:53"),
	}
	node := testnet.NewNode(t)
	in(t, node, func() error {
		table, err := Open()
		if err != nil {
			return err
		}
		defer table.Close()
		if err := testnet.Track(other[1]); err != nil {
			return err
		}
		gone := Entry{family: unix.AF_INET6, Orig: Tuple{Src: pod, Dst: pod},
			Reply: Tuple{Src: pod, Dst: pod}}
		if state := table.testIPv6Filter(&gone); state != filterUntested {
			t.Errorf("by an entry that isn't there the filter has state %d", state)
		}
		if err := testnet.Track(slices.Concat(flows, other[:1])...); err != nil {
			return err
		}
		ofPod := func(e *Entry) bool {
			return slices.Contains(slices.Collect(maps.Values(e.places())), pod)
		}
		for range 2 { // the first one tests the filter
			found, err := table.Find(Anywhere(pod), ofPod)
			if err != nil || len(found) != len(flows) {
				t.Errorf("found %d entries (%v), want %d", len(found), err, len(flows))
			}
			opened, err := table.Find([]Query{OpenedBy(pod)}, ofPod)
			if err != nil || !FiltersIPv6() && len(opened) != len(flows) ||
				FiltersIPv6() && len(opened) != 1 {
				t.Errorf("opened by the pod, with a filter that works (%t): %d entries (%v)",
					FiltersIPv6(), len(opened), err)
			}
		}
		opened, err := table.list(OpenedBy(pod), func(*Entry) bool { return true })
		works := len(opened) == 1 && opened[0].Orig.Src == pod
		if err != nil || works != FiltersIPv6() {
			t.Errorf("the filter finds %d entries (%v); it is said to work: %t", len(opened), err,
				FiltersIPv6())
		}
		t.Logf("this kernel's filter works: %t", works)
		return nil
	})
}

// Several walks of the table have to be cheaper than one that copies it.
func TestWorthFiltering(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		queries, entries int
		want             bool
	}{{2, 1000, false}, {2, 10_000, true}, {4, 10_000, false}, {4, 50_000, true},
		{5, 50_000, true}, {8, 50_000, false}, {8, 1_000_000, false}} {
		if got := worthFiltering(make([]Query, c.queries), c.entries); got != c.want {
			t.Errorf("%d walks of %d entries are worth it: %t", c.queries, c.entries, got)
		}
	}
}

// What a kernel lists for an address says whether its filter can be used.
func TestFilterTest(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	entry := func(src, dst string) Entry {
		tuple := Tuple{Src: addr(src), Dst: addr(dst)}
		return Entry{family: unix.AF_INET6, Orig: tuple, Reply: Tuple{Src: tuple.Dst, Dst: tuple.Src},
			rawOrig: []byte(src + dst)}
	}
	known, other := entry("fd00::1", "fd00::2"), entry("fd00::3", "fd00::4")
	like := entry("fd00::1", "fd00::4") // the same source
	for name, c := range map[string]struct {
		listed []Entry
		want   filterState
	}{
		"as it should be":               {[]Entry{like, known}, filterWorks},
		"the entry is gone":             {[]Entry{like}, filterUntested},
		"nothing":                       {nil, filterUntested},
		"all others":                    {[]Entry{other}, filterInverted},
		"everything":                    {[]Entry{known, other}, filterInverted},
		"everything, in another order":  {[]Entry{other, known}, filterInverted},
		"others, and the same at first": {[]Entry{like, other}, filterInverted},
	} {
		test := filterTest{known: &known, at: place{nl.CTA_TUPLE_ORIG, source}}
		for i := range c.listed {
			if test.look(&c.listed[i]) {
				t.Errorf("%s: an entry is kept", name)
			}
		}
		if got := test.state(); got != c.want {
			t.Errorf("%s: state %d, want %d", name, got, c.want)
		}
	}
}

// A kernel that doesn't filter IPv6 addresses is asked for all of the family.
func TestAsked(t *testing.T) {
	t.Parallel()
	pod4, pod6 := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00:1::2")
	queries := []Query{OpenedBy(pod4), OpenedBy(pod6), AnsweredBy(pod6)}
	all := Query{family: unix.AF_INET6}
	if got := asked(queries, true); !slices.Equal(got, queries) {
		t.Errorf("a kernel that filters is asked for %+v", got)
	}
	if got := asked(queries, false); !slices.Equal(got, []Query{queries[0], all, all}) {
		t.Errorf("a kernel that doesn't filter is asked for %+v", got)
	}
	if !slices.Equal(queries[1:], []Query{OpenedBy(pod6), AnsweredBy(pod6)}) {
		t.Error("the caller's queries have changed")
	}
}

// A message that isn't whole names nothing: to delete by no name is to delete everything.
func TestParseEntryOfRubbish(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		if c, ok := parseEntry(data); ok && len(c.rawOrig) == 0 {
			t.Fatalf("%x is an entry without a name", data)
		}
	})
	whole := append(make([]byte, nl.SizeofNfgenmsg),
		attribute.Append(nil, nl.CTA_TUPLE_ORIG, nil)...)
	if c, ok := parseEntry(whole); ok {
		t.Errorf("an empty tuple is taken for %+v", c)
	}
}
