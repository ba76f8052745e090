package testnet

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

const forwardChain = "add table inet test; " +
	"add chain inet test forward { type filter hook forward priority 0; }; "

func TestDropIsSilence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	eachWay(w.forwarded(), func(from, _ *Host, proto Protocol, dst netip.Addr) {
		from.MustReach(t, proto, at(dst, openPort))
	})
	w.node.Nft(forwardChain + "add rule inet test forward ct state new drop")
	eachWay(w.forwarded(), func(from, _ *Host, proto Protocol, dst netip.Addr) {
		r := from.MustNotReach(t, proto, at(dst, openPort), WithTimeout(60*time.Millisecond))
		if !errors.Is(r.Err, ErrTimeout) {
			t.Errorf("%s: got %v, want a timeout", from.describe(proto, at(dst, openPort)), r)
		}
	})
	w.node.Nft("flush chain inet test forward")
	eachWay(w.forwarded(), func(from, _ *Host, proto Protocol, dst netip.Addr) {
		from.MustReach(t, proto, at(dst, openPort))
	})
}

// The rule is on the host's own output: the sender's system call itself reports it.
func TestDropInTheSendersOutputIsSilence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node.Nft("add table inet test; add chain inet test output { type filter hook output " +
		"priority 0; policy drop; }")
	eachWay([][2]*Host{{w.self, w.a}}, func(from, _ *Host, proto Protocol, dst netip.Addr) {
		r := from.MustNotReach(t, proto, at(dst, openPort), WithTimeout(60*time.Millisecond))
		if !errors.Is(r.Err, ErrTimeout) {
			t.Errorf("%s: got %v, want a timeout", from.describe(proto, at(dst, openPort)), r)
		}
	})
}

func TestRejections(t *testing.T) {
	t.Parallel()
	cases := []struct {
		rule string
		want error
	}{
		{"meta l4proto tcp reject with tcp reset", ErrReset},
		{"meta l4proto != tcp reject", ErrReset}, // port unreachable
		{"reject with icmpx host-unreachable", ErrUnreachable},
		{"reject with icmpx admin-prohibited", ErrUnreachable},
		{"reject with icmpx no-route", ErrUnreachable},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.node.Nft(forwardChain + "add rule inet test forward ct state new " + c.rule)
			tried := 0
			eachWay(w.forwarded()[:1], func(from, _ *Host, proto Protocol, dst netip.Addr) {
				r := from.Connect(proto, at(dst, openPort))
				if r.OK {
					return // the rule is about another protocol
				}
				tried++
				if !errors.Is(r.Err, c.want) {
					t.Errorf("%s: got %v, want %v", from.describe(proto, at(dst, openPort)),
						r, c.want)
				}
			})
			if tried < 2 {
				t.Errorf("the rule refused %d connections, want at least 2", tried)
			}
		})
	}
}

// The checks must be able to fail, and say what happened to which connection.
func TestChecksCanFail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dst := at(w.b.Addr4(), openPort)

	wrong := &recorder{TB: t}
	w.a.MustNotReach(wrong, TCP, dst)
	wrong.wantFailure(t, "pod-a -> pod-b tcp 10.0.0.3:80: expected timeout or reset, got connect")

	// A handshake without a line is no denial either.
	w.node.Nft(forwardChain +
		"add rule inet test forward ct direction reply tcp flags & psh == psh drop")
	wrong = &recorder{TB: t}
	if r := w.a.MustNotReach(wrong, TCP, dst); !errors.Is(r.Err, ErrNoReply) {
		t.Errorf("got %v, want no reply", r)
	}
	wrong.wantFailure(t, "expected timeout or reset, got no reply")

	w.node.Nft("flush chain inet test forward; add rule inet test forward drop")
	wrong = &recorder{TB: t}
	w.a.MustReach(wrong, UDP, dst, Within(100*time.Millisecond))
	wrong.wantFailure(t, "pod-a -> pod-b udp 10.0.0.3:80: expected connect, got timeout")

	// Nor is an address that has no route.
	wrong = &recorder{TB: t}
	w.away.MustNotReach(wrong, TCP, at(netip.MustParseAddr("10.0.0.9"), openPort))
	wrong.wantFailure(t, "away -> tcp 10.0.0.9:80", "unreachable")
}
