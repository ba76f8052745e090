package nflog

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ipv4 and ipv6 are headers with what follows: documentation addresses, 1 to 2.
func ipv4(protocol byte, options, offset int, behind ...byte) []byte {
	b := make([]byte, 20, 64)
	b[0], b[9] = 4<<4|byte(5+options), protocol
	b[6], b[7] = byte(offset>>8), byte(offset)
	copy(b[12:], netip.MustParseAddr("192.0.2.1").AsSlice())
	copy(b[16:], netip.MustParseAddr("192.0.2.2").AsSlice())
	return slices.Concat(b, make([]byte, 4*options), behind)
}

func ipv6(protocol byte, behind ...byte) []byte {
	b := make([]byte, 40, 128)
	b[0], b[6] = 6<<4, protocol
	copy(b[8:], netip.MustParseAddr("2001:db8::1").AsSlice())
	copy(b[24:], netip.MustParseAddr("2001:db8::2").AsSlice())
	return append(b, behind...)
}

var ports = []byte{0x12, 0x34, 0, 80}

// header is an IPv6 extension header of 8 bytes, and more.
func header(next byte, more int) []byte {
	return append([]byte{next, byte(more)}, make([]byte, 6+8*more)...)
}

func TestParsePacket(t *testing.T) {
	t.Parallel()
	with := func(is4 bool, p Packet) Packet {
		p.Source, p.Destination = netip.MustParseAddr("2001:db8::1"),
			netip.MustParseAddr("2001:db8::2")
		if is4 {
			p.Source, p.Destination = netip.MustParseAddr("192.0.2.1"),
				netip.MustParseAddr("192.0.2.2")
		}
		return p
	}
	connection := func(protocol uint8) Packet {
		return Packet{Protocol: protocol, SourcePort: 0x1234, DestinationPort: 80}
	}
	for name, tc := range map[string]struct {
		b    []byte
		is4  bool
		want Packet
	}{
		"TCP":                {ipv4(6, 0, 0, ports...), true, connection(6)},
		"UDP behind options": {ipv4(17, 10, 0, ports...), true, connection(17)},
		"SCTP":               {ipv4(132, 0, 0, ports...), true, connection(132)},
		"ICMP":               {ipv4(1, 0, 0, 8, 1), true, Packet{Protocol: 1, Type: 8, Code: 1}},
		"GRE":                {ipv4(47, 0, 0, ports...), true, Packet{Protocol: 47}},
		"a first fragment":   {ipv4(17, 0, 0x2000, ports...), true, connection(17)},
		"a fragment": {ipv4(17, 0, 0x2001, ports...), true,
			Packet{Protocol: 17, Fragment: true}},
		"a last fragment": {ipv4(17, 0, 1, ports...), true,
			Packet{Protocol: 17, Fragment: true}},
		"don't fragment":        {ipv4(6, 0, 0x4000, ports...), true, connection(6)},
		"options cut off":       {ipv4(17, 10, 0)[:30], true, Packet{Protocol: 17}},
		"ports cut off":         {ipv4(17, 0, 0, 1, 2, 3), true, Packet{Protocol: 17}},
		"ICMP cut off":          {ipv4(1, 0, 0, 8), true, Packet{Protocol: 1}},
		"IPv6 TCP":              {ipv6(6, ports...), false, connection(6)},
		"IPv6 ICMP":             {ipv6(58, 128, 0), false, Packet{Protocol: 58, Type: 128}},
		"IPv6 without anything": {ipv6(59), false, Packet{Protocol: 59}},
		"hop by hop": {ipv6(0, slices.Concat(header(6, 0), ports)...), false,
			connection(6)},
		"options and routing": {
			ipv6(0, slices.Concat(header(60, 2), header(43, 0), header(17, 3), ports)...), false,
			connection(17)},
		"authentication": {
			ipv6(51, slices.Concat([]byte{6, 4}, make([]byte, 22), ports)...), false,
			connection(6)},
		"an IPv6 first fragment": {
			ipv6(44, slices.Concat([]byte{17, 0, 0, 1, 0, 0, 0, 9}, ports)...), false,
			connection(17)},
		"an IPv6 fragment": {
			ipv6(44, slices.Concat([]byte{17, 0, 0, 9, 0, 0, 0, 9}, ports)...), false,
			Packet{Protocol: 17, Fragment: true}},
		"fragment of what isn't": {
			ipv6(44, slices.Concat([]byte{0, 0, 0, 8, 0, 0, 0, 9}, header(6, 0), ports)...), false,
			Packet{Fragment: true}},
		"an IPv6 fragment cut off": {ipv6(44, 17, 0, 0), false, Packet{Protocol: 44}},
		"an extension cut off":     {ipv6(0, header(6, 200)[:20]...), false, Packet{Protocol: 6}},
		"an extension's middle":    {ipv6(0, 6, 0, 0), false, Packet{Protocol: 0}},
		"extensions without an end": {
			ipv6(0, slices.Repeat(header(0, 0), 40)...), false, Packet{Protocol: 0}},
	} {
		got, err := parsePacket(tc.b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		diff := cmp.Diff(with(tc.is4, tc.want), got,
			cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
		if diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "another version": {5 << 4}, "half an IPv4 header": ipv4(6, 0, 0)[:19],
		"half an IPv6 header":              ipv6(6)[:39],
		"an IPv4 header that is too short": append([]byte{4<<4 | 4}, ipv4(6, 0, 0)[1:]...),
	} {
		if got, err := parsePacket(b); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
