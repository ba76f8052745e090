package probe

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSCTPPacketRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := sctpPacket{
			source: rapid.Uint16().Draw(t, "source"),
			dest:   rapid.Uint16().Draw(t, "dest"),
			tag:    rapid.Uint32().Draw(t, "tag"),
			chunk:  rapid.SampledFrom([]byte{sctpInit, sctpInitAck, sctpAbort}).Draw(t, "chunk"),
		}
		if want.chunk != sctpAbort {
			want.initTag = rapid.Uint32().Draw(t, "initTag")
		}
		if want.chunk == sctpInitAck {
			want.cookie = rapid.StringN(0, 60, 200).Draw(t, "cookie")
		}
		packet := want.marshal()
		if len(packet)%4 != 0 {
			t.Errorf("%d bytes: not padded", len(packet))
		}
		got, ok := parseSCTP(packet)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(sctpPacket{})); !ok || diff != "" {
			t.Errorf("parsed (%v) with difference %s", ok, diff)
		}
		bit := rapid.IntRange(0, len(packet)*8-1).Draw(t, "bit")
		packet[bit/8] ^= 1 << (bit % 8)
		if _, ok := parseSCTP(packet); ok {
			t.Errorf("a packet with bit %d flipped was accepted", bit)
		}
	})
}

func TestParseSCTPTakesAnything(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		packet := rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "packet")
		if len(packet) >= sctpHeaderLen { // with a good checksum, to get past it
			sum := sctpChecksum(packet)
			packet[8], packet[9], packet[10], packet[11] = byte(sum), byte(sum>>8), byte(sum>>16),
				byte(sum>>24)
		}
		if p, ok := parseSCTP(packet); ok && len(p.cookie) > len(packet) {
			t.Errorf("a cookie of %d bytes out of %d", len(p.cookie), len(packet))
		}
	})
}
