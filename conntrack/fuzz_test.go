package conntrack

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"github.com/sluice-net/sluice/internal/attribute"
)

// FuzzConnection gives the decoder any entry of connection tracking. What it takes for one is named
// to the kernel as it came.
func FuzzConnection(f *testing.F) {
	attr := func(kind uint16, value ...byte) []byte { return attribute.Append(nil, kind, value) }
	for _, addresses := range [][2]netip.Addr{
		{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")},
		{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")},
	} {
		src, dst := uint16(nl.CTA_IP_V4_SRC), uint16(nl.CTA_IP_V4_DST)
		if addresses[0].Is6() {
			src, dst = nl.CTA_IP_V6_SRC, nl.CTA_IP_V6_DST
		}
		ip := attr(nl.CTA_TUPLE_IP, slices.Concat(attr(src, addresses[0].AsSlice()...),
			attr(dst, addresses[1].AsSlice()...))...)
		proto := attr(nl.CTA_TUPLE_PROTO,
			slices.Concat(attr(nl.CTA_PROTO_NUM, 17), attr(nl.CTA_PROTO_DST_PORT, 0, 53))...)
		tuple := slices.Concat(ip, proto)
		f.Add(slices.Concat([]byte{2, 0, 0, 0}, attr(nl.CTA_TUPLE_ORIG, tuple...),
			attr(nl.CTA_TUPLE_REPLY, tuple...), attr(nl.CTA_ZONE, 0, 1)))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		c, ok := parseEntry(message)
		if !ok {
			return
		}
		again, ok := parseEntry(slices.Concat([]byte{c.family, 0, 0, 0}, c.name()))
		if !ok || again.Orig != c.Orig || !bytes.Equal(again.rawZone, c.rawZone) ||
			len(c.rawOrig) == 0 {
			t.Errorf("%+v is named as %+v", c, again)
		}
	})
}
