package ruleworld

import (
	"net/netip"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/ruleset"
)

// Network is the pod network that the world's node belongs to. There is no tunnel device: its
// packets are those that tests make.
func Network() ruleset.Network {
	return ruleset.Network{
		Pods: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"),
			netip.MustParsePrefix("fd00:10:244::/48")},
		OwnPods: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"),
			netip.MustParsePrefix("fd00:10:244:1::/64")},
		Own: []netip.Addr{netip.MustParseAddr("198.51.100.1"),
			netip.MustParseAddr("2001:db8:2::1")},
		Tunnel: "sluice.1", Port: 8472,
		Local:      netip.MustParseAddr("198.51.100.1"),
		Endpoints:  []netip.Addr{netip.MustParseAddr("192.0.2.10")},
		Masquerade: true,
		Direct: []netip.Addr{netip.MustParseAddr("192.0.2.20"),
			netip.MustParseAddr("2001:db8:1::20")},
	}
}

// DrawNetwork draws a pod network with and without a tunnel, and so on.
func DrawNetwork(t *rapid.T) ruleset.Network {
	n := Network()
	n.Masquerade = rapid.Bool().Draw(t, "masquerade")
	if rapid.Bool().Draw(t, "host-gw") {
		n.Tunnel, n.Port, n.Local, n.Endpoints = "", 0, netip.Addr{}, nil
	}
	n.Endpoints = n.Endpoints[:rapid.IntRange(0, len(n.Endpoints)).Draw(t, "peers")]
	n.Direct = n.Direct[:rapid.IntRange(0, len(n.Direct)).Draw(t, "direct")]
	return n
}
