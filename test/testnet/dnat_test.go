package testnet

import (
	"net/netip"
	"strings"
	"testing"
)

var services = addrs("10.96.0.1", "fd96::1")

func TestDNAT(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.b.ServeTCP(8080)
	w.b.ServeUDP(8080)
	w.b.ServeSCTP(8080)
	for i, service := range services {
		for _, proto := range []Protocol{TCP, UDP, SCTP} {
			w.node.DNAT(proto, at(service, openPort), at(addrsB[i], 8080))
		}
	}
	for i, service := range services {
		for _, proto := range []Protocol{TCP, UDP, SCTP} {
			for _, from := range []*Host{w.a, w.away, w.self} {
				source := []netip.Addr{from.Addr4(), from.Addr6()}[i]
				reply := from.MustReach(t, proto, at(service, openPort)).Reply
				want := strings.TrimSuffix("pod-b "+at(source, 0).String(), "0")
				if !strings.HasPrefix(reply, want) {
					t.Errorf("%s: got reply %q, want %q",
						from.describe(proto, at(service, openPort)), reply, want)
				}
			}
			// Itself it sees as the node.
			reply := w.b.MustReach(t, proto, at(service, openPort)).Reply
			if !strings.HasPrefix(reply, "pod-b ") || strings.Contains(reply, addrsB[i].String()) {
				t.Errorf("hairpin %s: got reply %q, want pod-b and a peer that isn't %s", proto,
					reply, addrsB[i])
			}
		}
	}
}

func TestDNATTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.ServeTCP(8080)
	w.node.DNAT(TCP, at(services[0], 80), at(addrsB[0], openPort))
	w.node.DNAT(TCP, at(services[0], 81), at(addrsA[0], 8080))
	for port, want := range map[uint16]string{80: "pod-b ", 81: "pod-a "} {
		if r := w.away.MustReach(t, TCP, at(services[0], port)); !strings.HasPrefix(r.Reply, want) {
			t.Errorf("port %d: got reply %q, want one of %s", port, r.Reply, want)
		}
	}
}
