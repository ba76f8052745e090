package testnet

import (
	"errors"
	"testing"
	"time"
)

func TestFlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, dst := range addrsB {
		for _, proto := range []Protocol{TCP, UDP} {
			f := w.a.Open(t, proto, at(dst, openPort))
			for range 3 {
				if err := f.Echo(); err != nil {
					t.Errorf("%s %s: %v", proto, dst, err)
				}
			}
			if !w.a.has(f.LocalAddr().Addr()) || f.LocalAddr().Port() == 0 {
				t.Errorf("local address %s isn't one of pod-a", f.LocalAddr())
			}
			f.Close()
			f.Close()
			if err := f.Echo(); err == nil {
				t.Errorf("%s %s: an echo on a closed flow worked", proto, dst)
			}
		}
	}
}

func TestFlowIsOneFlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node.Nft(forwardChain + "add rule inet test forward ct state established accept")
	tcp := w.a.Open(t, TCP, at(addrsB[0], openPort))
	udp := w.a.Open(t, UDP, at(addrsB[1], openPort))
	// Had an echo opened a new connection, this would stop it.
	w.node.Nft("add rule inet test forward ct state new drop")
	for proto, f := range map[Protocol]*Flow{TCP: tcp, UDP: udp} {
		if err := f.Echo(); err != nil {
			t.Errorf("%s: %v", proto, err)
		}
		w.a.MustNotReach(t, proto, at(addrsB[0], openPort))
	}
}

func TestFlowThatIsCut(t *testing.T) {
	t.Parallel()
	for _, proto := range []Protocol{TCP, UDP} {
		t.Run(string(proto), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			f := w.a.Open(t, proto, at(addrsB[0], openPort), WithTimeout(150*time.Millisecond))

			w.node.Nft(forwardChain + "add rule inet test forward drop")
			if err := f.Echo(); !errors.Is(err, ErrTimeout) {
				t.Errorf("dropped: got %v, want a timeout", err)
			}
			w.node.Nft("flush chain inet test forward")
			deadline := time.Now().Add(time.Minute)
			for err := f.Echo(); err != nil; err = f.Echo() { // TCP sends again ever more slowly
				if time.Now().After(deadline) {
					t.Fatalf("not dropped any more: %v", err)
				}
			}
			w.node.Nft("add rule inet test forward meta l4proto tcp reject with tcp reset; add " +
				"rule inet test forward reject")
			if err := f.Echo(); !errors.Is(err, ErrReset) {
				t.Errorf("rejected: got %v, want a reset", err)
			}
		})
	}
}
