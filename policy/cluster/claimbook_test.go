package cluster

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// A claimBook has the claims that were added and not removed, whatever the pods' records have.
func TestClaimBook(t *testing.T) {
	t.Parallel()
	addresses := []netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"),
		netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("fd00::1"),
		netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::1%eth0"),
		netip.IPv4Unspecified(), netip.IPv6Unspecified(), {},
	}
	anyRecord := rapid.Custom(func(t *rapid.T) *podRecord {
		r := &podRecord{known: true, Pod: policy.Pod{ID: selector.Pod{
			UID: rapid.SampledFrom([]string{uuid.Nil.String(), "kept whole"}).Draw(t, "uid")}}}
		r.Addresses = rapid.SliceOfN(rapid.SampledFrom(addresses), 1, 2).Draw(t, "addresses")
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		records, pods := newShelf(), selector.Number(4)
		put := func(n selector.Number) {
			r := anyRecord.Draw(t, "record")
			r.number = n
			records.put(r)
		}
		for n := range pods {
			put(n)
		}
		book, want := newClaimBook(records), map[netip.Addr]map[selector.Number]struct{}{}
		for _, a := range addresses {
			want[a] = map[selector.Number]struct{}{}
		}
		draw := func(t *rapid.T) (netip.Addr, selector.Number) {
			return rapid.SampledFrom(addresses).Draw(t, "address"),
				selector.Number(rapid.Uint32Range(0, uint32(pods-1)).Draw(t, "pod"))
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				a, n := draw(t)
				if _, has := want[a][n]; !has {
					book.add(a, n)
					want[a][n] = struct{}{}
				}
			},
			"remove": func(t *rapid.T) {
				a, n := draw(t)
				book.remove(a, n)
				delete(want[a], n)
			},
			"replace": func(t *rapid.T) {
				_, n := draw(t)
				for a := range want {
					book.remove(a, n)
				}
				records.drop(n)
				put(n)
				for a := range want {
					if _, has := want[a][n]; has {
						book.add(a, n)
					}
				}
			},
			"": func(t *rapid.T) {
				var claimed []netip.Addr
				for _, a := range addresses {
					if len(want[a]) > 0 {
						claimed = append(claimed, a)
					}
					got := map[selector.Number]struct{}{}
					book.claimants([]netip.Addr{a}, got)
					if !maps.Equal(got, want[a]) || len(book.of(a)) != len(got) {
						t.Fatalf("%v is claimed by %v, want %v", a, book.of(a), want[a])
					}
				}
				slices.SortFunc(claimed, netip.Addr.Compare)
				all := slices.SortedFunc(book.addresses(), netip.Addr.Compare)
				if !slices.Equal(all, claimed) {
					t.Fatalf("claimed are %v, want %v", all, claimed)
				}
			},
		})
	})
}
