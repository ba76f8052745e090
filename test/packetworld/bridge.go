package packetworld

import (
	"net/netip"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"
)

// BridgedRanges are the addresses of pods that the stock bridge plugin wires.
var BridgedRanges = []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16"),
	netip.MustParsePrefix("fd88::/64")}

// BridgePods wires pods of namespace ops by the stock bridge plugin. The Enforcer doesn't know
// them.
func (w *World) BridgePods(names ...string) (pods []policy.Pod) {
	w.T.Helper()
	for i, name := range names {
		octet := byte(10 + i)
		p := policy.Pod{
			ID: selector.Pod{Namespace: "ops", Name: name, UID: name}, Node: cases.NodeName,
			Labels: selector.LabelSetOf(map[string]string{"app": name}),
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 88, 0, octet}),
				netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x88, 15: octet})},
		}
		h := w.Node.BridgedPod("ops/"+name, p.Addresses...)
		w.Hosts["ops/"+name] = h
		Serve(h)
		pods = append(pods, p)
	}
	return pods
}
