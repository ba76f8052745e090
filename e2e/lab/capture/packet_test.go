package capture

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Frames, as tcpdump -xx prints them.
const (
	etherTo4 = "02006e000002 02006e000001 0800"
	etherTo6 = "02006e000002 02006e000001 86dd"
	// A SYN from 10.244.1.1:40000 to 10.244.2.1:80, with DF.
	syn4 = "4500003c 00004000 40060000 0af40101 0af40201 9c400050 00000001 00000000 a002faf0 " +
		"00000000 020405b4 0402080a 00000000 00000000 01030307"
	// The outer headers of VXLAN 1 from 192.168.0.1 to 192.168.0.2.
	vxlan4 = "4500006e 00000000 40110000 c0a80001 c0a80002 d4312118 005a0000 08000000 00000100"
	// A UDP fragment from fd00::1 to fd00::2 behind hop-by-hop options: the first, and another.
	fragments6 = "60000000 00200040 fd000000 00000000 00000000 00000001 fd000000 00000000 " +
		"00000000 00000002 2c000104 00000000 1100 "
)

func frame(t *testing.T, parts ...string) []byte {
	t.Helper()
	bytes, err := hex.DecodeString(strings.ReplaceAll(strings.Join(parts, ""), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func TestParseFrame(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		frame []byte
		want  string // empty: not IP
	}{
		{"TCP", frame(t, etherTo4, syn4), "10.244.1.1:40000 > 10.244.2.1:80 TCP, 60 bytes"},
		{
			"VXLAN", frame(t, etherTo4, vxlan4, etherTo4, syn4),
			"192.168.0.1:54321 > 192.168.0.2:8472 UDP, 110 bytes, VXLAN 1 [10.244.1.1:40000 > " +
				"10.244.2.1:80 TCP, 60 bytes]",
		},
		{
			"VXLAN with ARP", frame(t, etherTo4, vxlan4, "ffffffffffff 02006e000001 0806 0001"),
			"192.168.0.1:54321 > 192.168.0.2:8472 UDP, 110 bytes, VXLAN 1",
		},
		{"first fragment", frame(t, etherTo6, fragments6, "0001 00000007 0035d431 00100000"),
			"[fd00::1]:53 > [fd00::2]:54321 UDP, 72 bytes"},
		{"later fragment", frame(t, etherTo6, fragments6, "0801 00000007 0035d431 00100000"),
			"[fd00::1]:0 > [fd00::2]:0 UDP, 72 bytes"},
		{"ARP", frame(t, "ffffffffffff 02006e000001 0806 0001 0800 0604"), ""},
		{"half a header", frame(t, etherTo4, syn4[:27]), ""},
	} {
		p, ok := parseFrame(test.frame)
		got := ""
		if ok {
			got = p.String()
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

// Nothing that arrives may end the capture.
func TestParseFrameTakesAnything(t *testing.T) {
	t.Parallel()
	for _, whole := range [][]byte{frame(t, etherTo4, vxlan4, etherTo4, syn4),
		frame(t, etherTo6, fragments6, "0001 00000007 0035d431 00100000")} {
		for length := range whole {
			if p, ok := parseFrame(whole[:length]); ok && !p.Src.Addr().IsValid() {
				t.Errorf("%d bytes became %+v", length, p)
			}
			for _, value := range []byte{0, 0x7f, 0xff} {
				broken := append([]byte(nil), whole...)
				broken[length] = value
				if p, ok := parseFrame(broken); ok && !p.Src.Addr().IsValid() {
					t.Errorf("byte %d as %#x became %+v", length, value, p)
				}
			}
		}
	}
	inner := frame(t, etherTo4, vxlan4, etherTo4, syn4)
	p, ok := parseFrame(inner)
	if !ok || p.DontFragment || !p.Innermost().DontFragment || !p.Innermost().IsTCP(2) ||
		p.Innermost().IsTCP(16) || p.IsTCP(0) {
		t.Errorf("got %+v (%v)", p, ok)
	}
}
