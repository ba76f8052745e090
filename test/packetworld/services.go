package packetworld

import (
	"net/netip"

	"github.com/sluice-net/sluice/test/testnet"
)

// Service is a virtual address of each family, as of a ClusterIP.
var Service = map[int]netip.Addr{4: netip.MustParseAddr("10.96.0.10"),
	6: netip.MustParseAddr("fd00:10:96::10")}

// BothFamilies are those of IP.
var BothFamilies = []int{4, 6}

// DNAT sends connections to an address and port to a pod's port.
func (w *World) DNAT(family int, from netip.Addr, port uint16, to string, toPort uint16) {
	w.T.Helper()
	w.Node.DNAT(testnet.TCP, netip.AddrPortFrom(from, port),
		netip.AddrPortFrom(w.Addr(to, family), toPort))
}

// IPVS is DNAT by IPVS, as kube-proxy in IPVS mode has it.
func (w *World) IPVS(family int, from netip.Addr, port uint16, to string, toPort uint16) {
	w.T.Helper()
	w.Node.IPVS(testnet.TCP, netip.AddrPortFrom(from, port),
		netip.AddrPortFrom(w.Addr(to, family), toPort))
}
