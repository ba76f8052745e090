package ruleset_test

import (
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// TestSCTPThroughTranslation: behind a Service's address, as others' NAT leads it, SCTP is judged
// by the pod's port, and by who asked. The kernel's own sockets speak it, if there are any.
func TestSCTPThroughTranslation(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{})
	const port = 1080
	clients := map[string]bool{"dev/web": true, "prod/web": false, "out": false, "node": true}
	for _, family := range packetworld.BothFamilies {
		w.Node.DNAT(testnet.SCTP, netip.AddrPortFrom(packetworld.Service[family], port),
			netip.AddrPortFrom(w.Addr("dev/db", family), 80))
	}
	each := func(try func(from *testnet.Host, allowed bool, to netip.AddrPort)) {
		for from, allowed := range clients {
			for _, family := range packetworld.BothFamilies {
				try(w.Hosts[from], allowed, netip.AddrPortFrom(packetworld.Service[family], port))
			}
		}
	}
	each(func(from *testnet.Host, _ bool, to netip.AddrPort) { // control
		from.MustReach(t, testnet.SCTP, to)
	})
	w.SetPolicy(map[string]string{"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{
		from: [{podSelector: {}}], ports: [{port: 80, protocol: SCTP}]}]}`})
	each(func(from *testnet.Host, allowed bool, to netip.AddrPort) {
		if allowed {
			from.MustReach(t, testnet.SCTP, to)
		} else {
			from.MustNotReach(t, testnet.SCTP, to)
		}
	})
	w.SetPolicy(map[string]string{"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{
		from: [{podSelector: {}}], ports: [{port: 1080, protocol: SCTP}]}]}`})
	each(func(from *testnet.Host, _ bool, to netip.AddrPort) {
		if from != w.Hosts["node"] {
			from.MustNotReach(t, testnet.SCTP, to)
		}
	})
}
