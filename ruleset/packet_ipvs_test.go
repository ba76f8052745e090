package ruleset_test

import (
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// TestIPVS: what real IPVS sends on is judged as what others' NAT sends on is: by the pod behind a
// Service, and by who asked. Services lead to a pod of this node and elsewhere; a node port to a
// pod of this node.
func TestIPVS(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{IPVS: true})
	const here, elsewhere, nodePort = 1080, 1081, 30080
	for _, family := range packetworld.BothFamilies {
		vip := packetworld.Service[family]
		w.IPVS(family, vip, here, "dev/db", 8080)
		w.IPVS(family, vip, elsewhere, "out2", 80)
		w.IPVS(family, w.Addr("node", family), nodePort, "dev/db", 8080)
		w.Node.IPVS(testnet.UDP, netip.AddrPortFrom(vip, here),
			netip.AddrPortFrom(w.Addr("dev/db", family), 81))
		w.Node.IPVS(testnet.SCTP, netip.AddrPortFrom(vip, here),
			netip.AddrPortFrom(w.Addr("dev/db", family), 80))
	}
	all := []ipvsFlow{
		{"dev/web", here}, {"prod/web", here}, {"node", here}, {"out", here}, {"dev/db", here},
		{"dev/web", elsewhere}, {"prod/web", elsewhere}, {"node", elsewhere},
		{"dev/web", nodePort}, {"prod/web", nodePort}, {"out", nodePort},
	}
	w.throughIPVS(all, nil) // control
	for _, tc := range []struct {
		name, spec string
		denied     []ipvsFlow
	}{
		{"egress to the pod behind", `{podSelector: {matchLabels: {app: web}},
			policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}],
			ports: [{port: 8080}, {port: 81, protocol: UDP},
			{port: 80, protocol: SCTP}]}]}`,
			[]ipvsFlow{{"dev/web", elsewhere}}},
		{"egress to the Service's address and port", `{podSelector: {matchLabels: {app: web}},
			policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}},
			{ipBlock: {cidr: "fd00:10:96::/64"}}, {ipBlock: {cidr: 198.51.100.1/32}},
			{ipBlock: {cidr: "2001:db8:2::1/128"}}]}]}`,
			[]ipvsFlow{{"dev/web", here}, {"dev/web", elsewhere}, {"dev/web", nodePort}}},
		{"ingress from one pod", `{podSelector: {matchLabels: {app: db}},
			ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`,
			[]ipvsFlow{{"prod/web", here}, {"out", here}, {"prod/web", nodePort},
				{"out", nodePort}}},
		{"ingress from outside", `{podSelector: {matchLabels: {app: db}},
			ingress: [{from: [{ipBlock: {cidr: 192.0.2.10/32}},
			{ipBlock: {cidr: "2001:db8:1::10/128"}}]}]}`,
			[]ipvsFlow{{"dev/web", here}, {"prod/web", here}, {"dev/web", nodePort},
				{"prod/web", nodePort}}},
	} {
		t.Log(tc.name)
		w.SetPolicy(map[string]string{"dev/p": tc.spec})
		w.throughIPVS(all, tc.denied)
		w.Cluster.DeletePolicy(policy.Key{Namespace: "dev", Name: "p"})
		w.Apply()
	}
	w.throughIPVS(all, nil)
}

// ipvsFlow goes from a host to the Service, or to a node port.
type ipvsFlow struct {
	from string
	port uint16
}

// throughIPVS tries all flows, in each family, and in TCP and, to the Service here, in UDP and
// SCTP.
func (w *packetWorld) throughIPVS(all, denied []ipvsFlow) {
	w.T.Helper()
	for _, f := range all {
		for _, family := range packetworld.BothFamilies {
			to := packetworld.Service[family]
			if f.port >= 30000 {
				to = w.Addr("node", family)
			}
			try := w.Hosts[f.from].MustReach
			for _, d := range denied {
				if f == d {
					try = w.Hosts[f.from].MustNotReach
				}
			}
			try(w.T, testnet.TCP, netip.AddrPortFrom(to, f.port))
			if f.port == 1080 {
				try(w.T, testnet.UDP, netip.AddrPortFrom(to, f.port))
				try(w.T, testnet.SCTP, netip.AddrPortFrom(to, f.port))
			}
		}
	}
}
