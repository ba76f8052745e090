package testprogram

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestPortRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := Port{Protocol: rapid.SampledFrom([]string{TCP, UDP, SCTP}).Draw(t, "protocol"),
			Number: rapid.Uint16Min(1).Draw(t, "number")}
		if got, err := ParsePort(want.String()); err != nil || got != want {
			t.Errorf("got %v (%v), want %v", got, err, want)
		}
	})
	for _, text := range []string{"", "tcp", "tcp/", "tcp/0", "tcp/65536", "icmp/1", "80/tcp"} {
		if got, err := ParsePort(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestTargetRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		bytes := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
		addr := rapid.SampledFrom([]netip.Addr{netip.AddrFrom16([16]byte(bytes)).Unmap(),
			netip.AddrFrom4([4]byte(bytes))}).Draw(t, "family")
		want := NewTarget(rapid.SampledFrom([]string{TCP, UDP, SCTP, ICMP}).Draw(t, "protocol"),
			addr, rapid.Uint16Min(1).Draw(t, "port"))
		if got, err := ParseTarget(want.String()); err != nil || got != want {
			t.Errorf("%s: got %v (%v), want %v", want, got, err, want)
		}
	})
}

func TestParseTarget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Target{
		"tcp://10.244.1.2:80":        {Protocol: TCP, Host: "10.244.1.2", Port: 80},
		"udp://[fd00::2]:53":         {Protocol: UDP, Host: "fd00::2", Port: 53},
		"tcp://web.prod.svc:80":      {Protocol: TCP, Host: "web.prod.svc", Port: 80},
		"sctp://10.0.0.1:9000":       {Protocol: SCTP, Host: "10.0.0.1", Port: 9000},
		"icmp://10.0.0.1":            {Protocol: ICMP, Host: "10.0.0.1"},
		"icmp://[fd00::2]":           {Protocol: ICMP, Host: "fd00::2"},
		"icmp://kubernetes.default.": {Protocol: ICMP, Host: "kubernetes.default."},
	} {
		if got, err := ParseTarget(text); err != nil || got != want {
			t.Errorf("%s: got %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "10.244.1.2:80", "tcp://10.244.1.2", "tcp://:80", "tcp://fd00::2:80",
		"http://10.244.1.2:80",
		"icmp://", "icmp://10.244.1.2:1", "tcp://10.244.1.2:0", "tcp://10.244.1.2:65536",
		"tcp://10.244.1.2:http",
	} {
		if got, err := ParseTarget(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestReadLog(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	want := []Report{
		{Serving: true},
		{Peer: &Peer{At: at, Protocol: UDP, Port: 53,
			From: netip.MustParseAddrPort("[fd00::2]:4242")}},
		{
			First: &First{
				Denied: []Tried{{Result: Result{Target: "tcp://10.0.0.1:80", Error: "no",
					Kind: Timeout}, Attempts: 50, Seconds: 1}}}},
		{Attempt: &Attempt{Result: Result{Target: "tcp://10.0.0.1:80", OK: true,
			Reply: "web 10.0.0.2:1", Kind: OK}, At: at, Seconds: 0.5}},
		{Break: &Break{Target: "tcp://10.0.0.1:80", At: at, Seconds: 2, Error: "reset",
			Reconnected: true}},
		{Summary: &Summary{At: at, Target: "tcp://10.0.0.1:80", Attempts: 10, Succeeded: 9}},
	}
	log := "testpod: warning\n"
	for _, report := range want {
		line, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		log += string(line) + "\n"
	}
	log += `{"summary":{"at":"2026-`
	diff := cmp.Diff(want, ReadLog(log),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }))
	if diff != "" {
		t.Errorf("read with difference %s", diff)
	}
}

func TestDenied(t *testing.T) {
	t.Parallel()
	for kind, want := range map[Kind]bool{
		OK: false, Timeout: true, Reset: true, Unreachable: false, NoName: false, NoReply: false,
		TooBig: false, Unsupported: false, Failed: false,
	} {
		if kind.Denied() != want {
			t.Errorf("%s: denied %v, want %v", kind, !want, want)
		}
	}
}
