package podprogram

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/test/probe"
)

func TestPortRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := Port{
			Protocol: rapid.SampledFrom([]probe.Protocol{probe.TCP, probe.UDP, probe.SCTP}).
				Draw(t, "protocol"),
			Number: rapid.Uint16().Draw(t, "number"),
		}
		if got, err := ParsePort(want.String()); err != nil || got != want {
			t.Errorf("got %v (%v), want %v", got, err, want)
		}
	})
}

func TestParseTarget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"tcp://10.244.1.2:80":  "tcp 10.244.1.2:80",
		"udp://[fd00::2]:53":   "udp [fd00::2]:53",
		"sctp://10.0.0.1:9000": "sctp 10.0.0.1:9000",
	} {
		got, err := ParseTarget(text)
		if err != nil || string(got.Protocol)+" "+got.Address.String() != want {
			t.Errorf("%s: got %v (%v), want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "10.244.1.2:80", "tcp://name:80", "tcp://10.244.1.2",
		"icmp://10.244.1.2:1", "tcp://10.244.1.2:65536"} {
		if got, err := ParseTarget(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}
