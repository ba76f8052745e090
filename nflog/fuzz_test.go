package nflog

import (
	"slices"
	"testing"
)

// FuzzParsePacket: any bytes are read without a panic, and what is read is in the packet: a longer
// copy of it never says otherwise about the addresses.
func FuzzParsePacket(f *testing.F) {
	for _, b := range [][]byte{
		nil, ipv4(6, 0, 0, ports...), ipv4(17, 10, 0x2001, ports...), ipv6(58, 128, 0),
		ipv6(0, slices.Concat(header(44, 0), []byte{17, 0, 0, 9, 0, 0, 0, 9}, ports)...),
		ipv6(51, slices.Concat([]byte{6, 4}, make([]byte, 22), ports)...),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePacket(b)
		if err != nil {
			return
		}
		if p.Source.Is4() != p.Destination.Is4() || p.Source.Is4() != (b[0]>>4 == 4) {
			t.Errorf("%x: from %s to %s", b, p.Source, p.Destination)
		}
		if p.Fragment && (p.SourcePort|p.DestinationPort != 0 || p.Type|p.Code != 0) {
			t.Errorf("%x: ports of a fragment: %+v", b, p)
		}
		if longer, err := parsePacket(append(slices.Clone(b), 1, 2, 3, 4)); err != nil ||
			longer.Source != p.Source || longer.Destination != p.Destination {
			t.Errorf("%x: %+v, and with more behind it %+v, %v", b, p, longer, err)
		}
	})
}

// FuzzParseRecord: so is any message.
func FuzzParseRecord(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{2, 0, 0, 1, 8, 0, 12, 0, 0, 0, 0, 7, 28, 0, 9, 0},
		ipv4(6, 0, 0, ports...)...))
	f.Add([]byte{2, 0, 0, 1, 6, 0, 4, 0, 1, 2, 0, 0}) // an interface of two bytes
	f.Fuzz(func(t *testing.T, b []byte) {
		r, _, err := parseRecord(b)
		if err == nil && !r.Source.IsValid() {
			t.Errorf("%x: a record without a source: %+v", b, r)
		}
	})
}
