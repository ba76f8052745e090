package prefixset_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/internal/prefixset"
)

// TestOverlapping: against looking at all members.
func TestOverlapping(t *testing.T) {
	t.Parallel()
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		a := netip.AddrFrom4([4]byte{10, 0, rapid.Byte().Draw(t, "third"),
			rapid.Byte().Draw(t, "last")})
		if rapid.Bool().Draw(t, "IPv6") {
			a = netip.AddrFrom16([16]byte{0: 0xfd, 15: rapid.Byte().Draw(t, "last of 16")})
		}
		return netip.PrefixFrom(a, a.BitLen()-rapid.IntRange(0, 12).Draw(t, "host bits")).Masked()
	})
	rapid.Check(t, func(t *rapid.T) {
		var set prefixset.Set
		owners := map[netip.Prefix]string{}
		for range rapid.IntRange(1, 40).Draw(t, "prefixes") {
			p := prefix.Draw(t, "prefix")
			want := map[string]bool{}
			for q, owner := range owners {
				if q.Overlaps(p) {
					want[owner] = true
				}
			}
			owner, found := set.Overlapping(p)
			if found != (len(want) > 0) || found && !want[owner] {
				t.Fatalf("%s overlaps that of %q, %v; want one of %v", p, owner, found, want)
			}
			if !found {
				owners[p] = p.String()
				set.Add(p, p.String())
			}
		}
	})
}
