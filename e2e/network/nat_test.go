package network

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

// The underlay drops what comes from a pod's address: what leaves the tunnel must have a node's,
// and what a node sends to a pod elsewhere must go through the tunnel and back, with any reverse
// path filter.
func TestAddressTranslation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "nat",
		lab.Options{Nodes: 3, Subnets: 2, DropPodSources: true, RPFilter: lab.RPFilterStrict})
	// nodes 1 and 3 are on one subnet
	const client, near, far = "default/client", "default/near", "default/far"
	w.create("node1", client)
	w.create("node3", near)
	w.create("node2", far)
	w.waitReady(client, near, far)
	const nodePort = 8080
	for _, node := range []string{"node2", "node3"} {
		server, err := w.Serve(node, probe.TCP, nodePort)
		must(t, err)
		t.Cleanup(server.Close)
	}
	for _, filter := range []struct{ name, value string }{{"strict", "1"}, {"loose", "2"},
		{"off", "0"}} {
		w.part("rp_filter "+filter.name, func(w *world) {
			for _, node := range w.NodeNames() {
				w.sh(node, "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo "+filter.value+
					" > $f; done")
			}
			for _, server := range []string{near, far} {
				w.talk(client, server)
				w.serviceOfNode("node1", server)
			}
			for _, node := range []string{"node2", "node3"} {
				for _, addr := range w.NodeAddrs(node) {
					w.reaches(client, probe.TCP, at(addr, nodePort), of(w.NodeAddrs("node1"), addr))
				}
			}
			for _, addr := range w.addrs(lab.Outside) {
				w.reaches(client, probe.TCP, at(addr, tcpPort), of(w.NodeAddrs("node1"), addr))
			}
		})
	}
	w.part("without a tunnel the underlay drops", func(w *world) {
		w.setBackend(lab.DirectRouting)
		for _, addr := range w.addrs(near) {
			if w.connects(client, at(addr, tcpPort)) {
				t.Errorf("a pod's packets passed the underlay to %s: what was tested before "+
					"proves nothing", addr)
			}
		}
		for _, addr := range w.NodeAddrs("node3") {
			if w.connects(client, at(addr, nodePort)) {
				t.Errorf("what pods send to a node on the same subnet passed the underlay to %s: "+
					"it must have the pod's address there", addr)
			}
		}
		w.setBackend(lab.VXLAN)
		w.talk(client, near)
	})
}

// serviceOfNode connects a process of a node to a pod by an address that the node translates, as
// kube-proxy does for Services.
func (w *world) serviceOfNode(node, pod string) {
	w.t.Helper()
	services := map[bool]netip.Addr{true: netip.MustParseAddr("10.96.0.10"),
		false: netip.MustParseAddr("fd00:10:96::10")}
	rules := "add table inet services; add chain inet services output { type nat hook output " +
		"priority -100; }"
	for _, addr := range w.addrs(pod) {
		service, backend := at(services[addr.Is4()], tcpPort), at(addr, tcpPort)
		if w.connects(node, service) {
			w.t.Fatalf("%s reaches %s before it is translated", node, service)
		}
		family := "ip"
		if addr.Is6() {
			family = "ip6"
		}
		rules += fmt.Sprintf(
			"; add rule inet services output %s daddr %s tcp dport %d dnat %s to %s", family,
			service.Addr(), tcpPort, family, backend)
	}
	_, err := w.Nft(w.t.Context(), node, rules)
	must(w.t, err)
	defer func() {
		_, err := w.Nft(context.WithoutCancel(w.t.Context()), node, "delete table inet services")
		must(w.t, err)
	}()
	for _, addr := range w.addrs(pod) {
		w.reaches(node, probe.TCP, at(services[addr.Is4()], tcpPort), w.tunnelAddr(node, addr))
	}
}
