package testnet

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

func TestBridgedPods(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	addrsC, addrsD := addrs("10.88.0.2", "fd88::2"), addrs("10.88.0.3", "fd88::3")
	c, d := n.BridgedPod("c", addrsC...), n.BridgedPod("d", addrsD...)
	a, away := n.Pod("a", addrsA...), n.Outside("away", addrsOutside...)
	for _, h := range []*Host{a, c, d, away, n.Host()} {
		serveAll(h)
	}
	pairs := [][2]*Host{{c, d}, {a, c}, {c, a}, {away, c}, {n.Host(), c}}
	for i, service := range services {
		n.DNAT(TCP, at(service, openPort), at(addrsD[i], openPort))
		n.DNAT(UDP, at(service, openPort), at(addrsD[i], openPort))
	}
	reach := func() {
		eachWay(pairs, func(from, _ *Host, proto Protocol, dst netip.Addr) {
			from.MustReach(t, proto, at(dst, openPort))
		})
		for _, service := range services {
			for _, from := range []*Host{c, d, a} { // d reaches itself
				from.MustReach(t, TCP, at(service, openPort))
				from.MustReach(t, UDP, at(service, openPort))
			}
		}
	}
	reach()
	// What a bridge forwards passes the forward hook as well.
	n.Nft(forwardChain + "add rule inet test forward ct state new drop")
	eachWay(pairs[:3], func(from, _ *Host, proto Protocol, dst netip.Addr) {
		r := from.MustNotReach(t, proto, at(dst, openPort), WithTimeout(60*time.Millisecond))
		if !errors.Is(r.Err, ErrTimeout) {
			t.Errorf("got %v, want a timeout", r)
		}
	})
	n.Nft("flush chain inet test forward")
	reach()
}
