package network

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/e2e/lab"
)

// TestNodesInBlocks: whom an ipBlock admits doesn't depend on how packets go between nodes. A range
// of the pod network admits pods, and neither nodes nor the outsiders whose connections these send
// on; a node's address admits both.
func TestNodesInBlocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "blocks", lab.Options{})
	const server, client, nodePort = "default/server", "default/client", 30080
	w.create("node1", server)
	w.create("node2", client)
	w.waitReady(server, client)
	for _, node := range w.NodeNames() {
		w.nodePort(node, nodePort, server)
	}
	for _, backend := range []lab.Backend{lab.VXLAN, lab.HostGW} {
		w.part(string(backend), func(w *world) {
			w.setBackend(backend)
			w.awaitBackend(backend)
			tunnelled := backend == lab.VXLAN
			var tunnel2 []netip.Addr
			for _, cidr := range w.Node("node2").PodCIDRs() {
				tunnel2 = append(tunnel2, cidr.Addr())
			}
			for _, tc := range []struct {
				name, blocks string
				// the client; node2; the outside host by way of node2, and of node1
				pod, node, through, near bool
			}{
				{"any block", "0.0.0.0/0 ::/0", true, true, true, true},
				{"the pod network", "10.244.0.0/16 fd00:10:244::/48", true, false, false, false},
				{"another node's addresses", singles(w.NodeAddrs("node2")), false, true,
					true, false},
				{"another node's tunnel addresses", singles(tunnel2), false, tunnelled,
					tunnelled, false},
				{"the outside host", singles(w.addrs(lab.Outside)), false, false, false, true},
			} {
				w.part(tc.name, func(w *world) {
					w.admit(tc.blocks)
					for _, addr := range w.addrs(server) {
						w.tries(client, at(addr, tcpPort), tc.pod)
						w.tries("node2", at(addr, tcpPort), tc.node)
						w.tries(lab.Outside, at(of(w.NodeAddrs("node2"), addr), nodePort),
							tc.through)
						w.tries(lab.Outside, at(of(w.NodeAddrs("node1"), addr), nodePort), tc.near)
					}
				})
			}
		})
	}
}

// nodePort leads a node's port to a pod, and has the node's address answered, as kube-proxy does
// for a Service with externalTrafficPolicy Cluster: where the pod is elsewhere, it sees the node.
func (w *world) nodePort(node string, port uint16, pod string) {
	w.t.Helper()
	rules := []string{
		"add table inet nodeport",
		"add chain inet nodeport in { type nat hook prerouting priority -100; }",
		"add chain inet nodeport out { type nat hook postrouting priority 100; }",
		"add rule inet nodeport out ct status dnat oifname != slup* masquerade",
	}
	for _, addr := range w.addrs(pod) {
		family := "ip"
		if addr.Is6() {
			family = "ip6"
		}
		local := of(w.NodeAddrs(node), addr)
		rules = append(rules,
			fmt.Sprintf("add rule inet nodeport in %s daddr %s tcp dport %d dnat %s to %s", family,
				local, port, family, at(addr, tcpPort)))
	}
	w.nft(node, strings.Join(rules, "\n"))
}

// admit has only these blocks reach pods.
func (w *world) admit(blocks string) {
	w.t.Helper()
	const policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: " +
		"blocks, namespace: default}, spec: {podSelector: {}, ingress: [{from: [%s]}]}}"
	var peers []string
	for cidr := range strings.FieldsSeq(blocks) {
		peers = append(peers, fmt.Sprintf("{ipBlock: {cidr: %q}}", cidr))
	}
	must(w.t, w.Apply(w.t.Context(), fmt.Sprintf(policy, strings.Join(peers, ", "))))
}

// tries demands that connections come to work, or come not to.
func (w *world) tries(from string, to netip.AddrPort, want bool) {
	w.t.Helper()
	what := fmt.Sprintf("%s -> %s: connects %v", from, to, want)
	w.eventually(settleTime, what, func() bool { return w.connects(from, to) == want })
}

// singles are addresses as blocks of one each.
func singles(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return strings.Join(texts, " ")
}
