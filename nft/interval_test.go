package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestElementText(t *testing.T) {
	t.Parallel()
	v4, v6 := addr("10.0.0.1"), addr("fd00::1")
	for _, c := range []struct {
		e    Element
		key  []Field
		want string
	}{
		{AddrElement(v4), []Field{SrcAddr4}, "10.0.0.1"},
		{AddrElement(addr("::ffff:10.0.0.1")), []Field{SrcAddr4}, "10.0.0.1"},
		{AddrElement(v6), []Field{DstAddr6}, "fd00::1"},
		{RangeElement(v4, addr("10.0.0.9")), []Field{DstAddr4}, "10.0.0.1-10.0.0.9"},
		{RangeElement(v4, v4), []Field{DstAddr4}, "10.0.0.1"},
		{AddrIfaceElement(v4, "slup0123456789a"), []Field{SrcAddr4, InIface},
			`10.0.0.1 . "slup0123456789a"`},
		{AddrIfaceElement(v6, "eth0"), []Field{DstAddr6, OutIface}, `fd00::1 . "eth0"`},
		{PortsElement(6, 80, 90), []Field{DstPort, L4Proto}, "80-90 . tcp"},
		{PortsElement(132, 0, 65535), []Field{DstPort, L4Proto}, "0-65535 . sctp"},
		{AddrProtoPortElement(v6, 17, 53), []Field{DstAddr6, L4Proto, DstPort},
			"fd00::1 . udp . 53"},
		{AddrElement(v4), []Field{SrcAddr6}, "0x0a000001-0x"},
	} {
		if got := c.e.Text(c.key); got != c.want {
			t.Errorf("%s: %s, want %s", c.e, got, c.want)
		}
	}
	if got := RangeElement(v4, addr("10.0.0.9")).String(); got != "0x0a000001-0x0a000009" {
		t.Errorf("String: %s", got)
	}
}

// genRanges draws disjoint ranges of port . (protocol 0 or 1), or of ports alone, near both ends of
// the numbers.
func genRanges(t *rapid.T, label string, key []Field) []Element {
	ports := []uint16{0, 1, 2, 255, 256, 257, 65534, 65535}
	var list []Element
	for proto := range uint8(len(key)) {
		for i := 0; i < len(ports); i++ {
			if !rapid.Bool().Draw(t, fmt.Sprintf("%s %d %d", label, proto, i)) {
				continue
			}
			first := ports[i]
			i = rapid.IntRange(i, len(ports)-1).Draw(t, label)
			e := PortsElement(proto, first, ports[i])
			if len(key) == 1 {
				e = Element{First: e.First[:4], Last: e.Last[:4]}
			}
			list = append(list, e)
		}
	}
	return list
}

// in reports whether a point is in any of the ranges, and in how many.
func in(list []Element, proto uint8, port uint16, key []Field) int {
	p := PortsElement(proto, port, port)
	if len(key) == 1 {
		p = Element{First: p.First[:4], Last: p.Last[:4]}
	}
	n := 0
	for _, e := range list {
		if _, ok := boxOf(key, e).intersect(boxOf(key, p)); ok {
			n++
		}
	}
	return n
}

func TestRangeAlgebra(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SampledFrom([][]Field{{DstPort}, {DstPort, L4Proto}}).Draw(t, "key")
		a, b := genRanges(t, "a", key), genRanges(t, "b", key)
		both := shared(key, slices.Clone(a), slices.Clone(b))
		rest := without(key, a, b)
		for proto := range uint8(len(key)) {
			for _, port := range []uint16{0, 1, 2, 3, 100, 254, 255, 256, 257, 258, 40000, 65533,
				65534, 65535} {
				inA, inB := in(a, proto, port, key), in(b, proto, port, key)
				if got := in(both, proto, port, key); got != inA*inB {
					t.Fatalf("%d . %d is in %d shared ranges of %v and %v: %v", proto, port, got, a,
						b, both)
				}
				if got := in(rest, proto, port, key); got != inA*(1-inB) {
					t.Fatalf("%d . %d is in %d ranges of %v without %v: %v", proto, port, got, a,
						b, rest)
				}
			}
		}
		for _, e := range append(both, rest...) {
			if boxOf(key, e).element(key) != e {
				t.Fatalf("%s isn't what its box is", e)
			}
		}
	})
}

func TestIsLast(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"255.255.255.255": true, "255.255.255.254": false, "192.168.255.255": false,
		"169.254.169.253": false, "128.128.128.128": false, "0.0.0.0": false,
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": true,
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe": false,
		"fe80:ffff:ffff:ffff:ffff:ffff:ffff:ffff": false, "10.255.255.255": false,
	} {
		if got := IsLast(string(netip.MustParseAddr(text).AsSlice())); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
