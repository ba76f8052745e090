package controllers

import (
	"net/netip"
	"testing"
)

func TestProbePath(t *testing.T) {
	t.Parallel()
	addrs := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			out = append(out, netip.MustParseAddr(text))
		}
		return out
	}
	for _, c := range []struct {
		cidr  string
		taken []netip.Addr
		want  string // source and destination; empty: none
	}{
		{"10.244.1.0/24", nil, "10.244.1.254 10.244.1.255"},
		{"10.244.1.7/24", addrs("10.244.1.254"), "10.244.1.253 10.244.1.255"},
		{"fd00::/64", addrs("fd00::ffff:ffff:ffff:ffff"), "fd00::ffff:ffff:ffff:fffd fd00::ffff:ffff:ffff:fffe"},
		{"10.244.1.4/30", addrs("10.244.1.5"), "10.244.1.6 10.244.1.7"},
		{"10.244.1.4/30", addrs("10.244.1.5", "10.244.1.6"), ""},
		{"10.244.1.4/31", nil, ""}, // the first one is the node's
		{"255.255.255.248/29", nil, "255.255.255.254 255.255.255.255"},
	} {
		path, err := probePath(netip.MustParsePrefix(c.cidr), c.taken)
		switch {
		case c.want == "" && err == nil:
			t.Errorf("%s without %s: %v, want an error", c.cidr, c.taken, path)
		case c.want != "" && (err != nil || path.Source.String()+" "+path.Destination.String() != c.want):
			t.Errorf("%s without %s: %v, error %v, want %s", c.cidr, c.taken, path, err, c.want)
		}
	}
}
