package conntrack

import (
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
