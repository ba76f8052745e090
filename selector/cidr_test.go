package selector

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go4.org/netipx"
	"pgregory.net/rapid"
)

func TestParseCIDR(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"10.0.0.0/8":                 "10.0.0.0/8",
		"0.0.0.0/0":                  "0.0.0.0/0",
		"::/0":                       "::/0",
		"255.255.255.255/32":         "255.255.255.255/32",
		"fd00::/64":                  "fd00::/64",
		"FD00::A/128":                "fd00::a/128",
		"10.1.2.3/8":                 "10.0.0.0/8",
		"10.1.2.3/0":                 "0.0.0.0/0",
		"fd00:1:2:3:4:5:6:7/48":      "fd00:1:2::/48",
		"010.008.0.001/32":           "10.8.0.1/32",
		"10.0.0.0/08":                "10.0.0.0/8",
		"::ffff:10.0.0.0/104":        "10.0.0.0/8",
		"::ffff:10.1.2.3/104":        "10.0.0.0/8",
		"::ffff:a01:203/128":         "10.1.2.3/32",
		"::ffff:0:0/96":              "0.0.0.0/0",
		"::ffff:010.1.2.3/128":       "10.1.2.3/32",
		"::ffff:10.0.0.0/95":         "::fffe:0:0/95",
		"::ffff:10.0.0.0/80":         "::/80",
		"::ffff:10.0.0.0/0":          "::/0",
		"::10.0.0.1/128":             "::a00:1/128",
		"64:ff9b::192.0.2.1/128":     "64:ff9b::c000:201/128",
		"0:0:0:0:0:ffff:c0a8:0/112":  "192.168.0.0/16",
		"2001:0db8:0000::0001/00128": "2001:db8::1/128",
	} {
		t.Run(in, func(t *testing.T) {
			t.Parallel()
			got, err := ParseCIDR(in)
			if err != nil {
				t.Fatal(err)
			}
			if got != netip.MustParsePrefix(want) {
				t.Errorf("got %v, want %s", got, want)
			}
		})
	}
}

func TestParseCIDRGarbage(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"", " ", "/", "10.0.0.0", "10.0.0.0/", "/8", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8",
		"10.0.0.0/8 ", " 10.0.0.0/8",
		"10.0.0/8", "10.0.0.0.0/8", "10.0.0.256/8", "0x0a.0.0.0/8", "10.0.0.0/255.0.0.0",
		"10.0.0.0/8/8", "10.0.0.0/8\n",
		"fd00::/129", "fd00::1::/64", "fd00::%eth0/64", "fd00/64", "::ffff:10.0.0.0/129",
		"12345::/16", "all", "0/0",
		"10.0.0.0/99999999999999999999",
	} {
		t.Run(in, func(t *testing.T) {
			t.Parallel()
			got, err := ParseCIDR(in)
			if err == nil {
				t.Fatalf("read as %v", got)
			}
			if !strings.Contains(err.Error(), strconv.Quote(in)) {
				t.Errorf("the error doesn't quote the value: %v", err)
			}
			if got.IsValid() {
				t.Errorf("an error and a valid block: %v", got)
			}
		})
	}
}

func TestSubtract(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		block  string
		except []string
		want   []string
	}{
		{"no except", "10.0.0.0/8", nil, []string{"10.0.0.0-10.255.255.255"}},
		{"everything", "0.0.0.0/0", nil, []string{"0.0.0.0-255.255.255.255"}},
		{"everything, IPv6", "::/0", nil, []string{"::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}},
		{"middle", "10.0.0.0/24", []string{"10.0.0.16/28"},
			[]string{"10.0.0.0-10.0.0.15", "10.0.0.32-10.0.0.255"}},
		{"start", "10.0.0.0/24", []string{"10.0.0.0/32"}, []string{"10.0.0.1-10.0.0.255"}},
		{"end", "10.0.0.0/24", []string{"10.0.0.255/32"}, []string{"10.0.0.0-10.0.0.254"}},
		{"first address of all", "0.0.0.0/0", []string{"0.0.0.0/32"},
			[]string{"0.0.0.1-255.255.255.255"}},
		{"last address of all", "0.0.0.0/0", []string{"255.255.255.255/32"},
			[]string{"0.0.0.0-255.255.255.254"}},
		{"upper half of all", "0.0.0.0/0", []string{"128.0.0.0/1"},
			[]string{"0.0.0.0-127.255.255.255"}},
		{"last address only", "255.255.255.255/32", nil,
			[]string{"255.255.255.255-255.255.255.255"}},
		{"last address of all, IPv6", "::/0",
			[]string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"},
			[]string{"::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"}},
		{"except is the block", "10.0.0.0/8", []string{"10.0.0.0/8"}, nil},
		{"except is more than the block", "10.0.0.0/8", []string{"0.0.0.0/0"}, nil},
		{"excepts cover the block together", "10.0.0.0/8",
			[]string{"10.128.0.0/9", "10.0.0.0/9"}, nil},
		{"excepts overlap", "10.0.0.0/24", []string{"10.0.0.0/25", "10.0.0.64/26", "10.0.0.0/25"},
			[]string{"10.0.0.128-10.0.0.255"}},
		{"excepts meet", "10.0.0.0/24", []string{"10.0.0.16/28", "10.0.0.32/28"},
			[]string{"10.0.0.0-10.0.0.15", "10.0.0.48-10.0.0.255"}},
		{"outside", "10.0.0.0/24", []string{"10.0.1.0/24", "9.255.255.255/32"},
			[]string{"10.0.0.0-10.0.0.255"}},
		{"other family", "10.0.0.0/24", []string{"::/0"}, []string{"10.0.0.0-10.0.0.255"}},
		{"other family, IPv6", "fd00::/64", []string{"0.0.0.0/0"},
			[]string{"fd00::-fd00::ffff:ffff:ffff:ffff"}},
		{"mapped addresses are IPv6 here", "::/0", []string{"0.0.0.0/0", "::/1"},
			[]string{"8000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}},
		{"host bits", "10.0.0.77/24", []string{"10.0.0.77/25"}, []string{"10.0.0.128-10.0.0.255"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var except []netip.Prefix
			for _, e := range tc.except {
				except = append(except, netip.MustParsePrefix(e))
			}
			var got []string
			for _, r := range Subtract(netip.MustParsePrefix(tc.block), except) {
				got = append(got, r.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSubtractInvalid(t *testing.T) {
	t.Parallel()
	ten := netip.MustParsePrefix("10.0.0.0/8")
	if got := Subtract(netip.Prefix{}, nil); len(got) != 0 {
		t.Errorf("invalid block: %v", got)
	}
	if got := Subtract(ten, []netip.Prefix{{}}); len(got) != 0 {
		t.Errorf("invalid except: %v", got)
	}
}

// Every address at which something could begin or end is judged by both.
func TestSubtractAgainstBruteForce(t *testing.T) {
	t.Parallel()
	// Bases at both ends of each family and in the middle; long prefixes meet each other often,
	// short ones reach the last address.
	bases := []netip.Addr{
		netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("10.0.0.0"),
		netip.MustParseAddr("255.255.255.0"),
		netip.MustParseAddr("::"), netip.MustParseAddr("::ffff:a00:0"),
		netip.MustParseAddr("fd00::"),
		netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00"),
	}
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		raw := rapid.SampledFrom(bases).Draw(t, "base").AsSlice()
		raw[len(raw)-1] |= rapid.Byte().Draw(t, "last byte")
		addr, _ := netip.AddrFromSlice(raw)
		size := addr.BitLen()
		short := rapid.OneOf(rapid.IntRange(0, 8), rapid.IntRange(0, size/8)).Draw(t, "host bits")
		if rapid.IntRange(0, 4).Draw(t, "short prefix") == 0 {
			short = size - rapid.IntRange(0, 3).Draw(t, "prefix bits")
		}
		return netip.PrefixFrom(addr, size-short)
	})
	rapid.Check(t, func(t *rapid.T) {
		block := prefix.Draw(t, "block")
		except := rapid.SliceOfN(prefix, 0, 5).Draw(t, "except")
		got := Subtract(block, except)

		for _, addr := range boundaries(append(except, block)) {
			want := block.Contains(addr)
			for _, e := range except {
				want = want && !e.Contains(addr)
			}
			if in := contains(got, addr); in != want {
				t.Fatalf("%v minus %v = %v: %v is in: %v, want %v", block, except, got, addr,
					in, want)
			}
		}
		for i, r := range got {
			if !r.IsValid() || r.From().BitLen() != block.Addr().BitLen() {
				t.Fatalf("%v minus %v: invalid range %v", block, except, r)
			}
			if i > 0 && got[i-1].To().Next().Compare(r.From()) >= 0 {
				t.Fatalf("%v minus %v: %v and %v aren't in order with a gap", block, except,
					got[i-1], r)
			}
		}
	})
}

// boundaries returns the first and last address of each prefix, their neighbours, and the ends of
// both families.
func boundaries(prefixes []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	add := func(addr netip.Addr) {
		for _, a := range []netip.Addr{addr.Prev(), addr, addr.Next()} {
			if a.IsValid() {
				out = append(out, a)
			}
		}
	}
	ends := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	for _, p := range append(ends, prefixes...) {
		add(p.Masked().Addr())
		add(netipx.PrefixLastIP(p))
	}
	return out
}

func contains(ranges []netipx.IPRange, addr netip.Addr) bool {
	for _, r := range ranges {
		if r.Contains(addr) {
			return true
		}
	}
	return false
}
