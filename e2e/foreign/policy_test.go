package foreign

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

// allWirings is every way in which pods get their network in these tests, each on a node of its
// own.
var allWirings = []wiring{{bridge, false}, {bridge, true}, {ptp, false}, {ptp, true}}

// nodePort is a port that nodes serve.
const nodePort = 8443

// Policies of the namespace shop.
const (
	toWeb = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: to-web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: 80}, {port: 53, protocol: UDP}]
`
	fromClient = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: from-client}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: web}}}]
`
	noWeb = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: no-web}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}
`
)

// TestPolicyOnly: what --policy-only promises, on pods wired in every way.
func TestPolicyOnly(t *testing.T) {
	w := newWorld(t, "policy", nil, allWirings...)
	w.shop()
	for _, test := range []struct {
		name string
		run  func(*world)
	}{
		{"meaning", (*world).testMeaning},
		{"hairpin", (*world).testHairpin},
		{"link scope", (*world).testLinkScope},
		{"starts", (*world).testStarts},
		{"strangers", func(w *world) { w.testStrangers(false) }},
		{"reuse", (*world).testReuse},
		{"agent down", (*world).testAgentDown},
		{"check", (*world).testCheck},
		{"hands off", (*world).testHandsOff},
		{"leaves nothing", (*world).testLeavesNothing}, // the last
	} {
		t.Run(test.name, func(t *testing.T) { test.run(inLab(t, w.Lab)) })
	}
}

// shop makes three pods on every node, and a server beside them.
func (w *world) shop() {
	w.t.Helper()
	w.namespaces("shop")
	var pods []*corev1.Pod
	for _, node := range w.Nodes() {
		for _, app := range []string{"web", "client", "other"} {
			pods = append(pods,
				pod(on(node, "shop/"+app), node.Name(), map[string]string{"app": app}, nil))
		}
		server, err := w.Serve(node.Name(), probe.TCP, nodePort)
		must(w.t, err)
		w.t.Cleanup(server.Close)
	}
	w.create(pods...)
}

// testMeaning: policies hold over both families, on the same node, between nodes, and from and to
// where no pods are.
func (w *world) testMeaning() {
	t := w.t
	// open is what both policies allow: what they name, replies, and what the node itself sends.
	// toWeb and fromClient is what only the policy of that name denies.
	var open, toWebOnly, fromClientOnly []flow
	nodes := w.Nodes()
	for i, node := range nodes {
		web, client, other := on(node, "shop/web"), on(node, "shop/client"), on(node, "shop/other")
		far := on(nodes[(i+1)%len(nodes)], "shop/web")
		open = append(open, tcp(client, web, 80), tcp(client, far, 80),
			flow{client, web, probe.UDP, 53}, tcp(node.Name(), web, 81),
			tcp(web, client, 80), tcp(web, lab.Outside, 80), tcp(web, node.Name(), nodePort),
			tcp(other, client, 81), tcp(lab.Outside, other, 80))
		toWebOnly = append(toWebOnly, tcp(other, web, 80), tcp(other, far, 80),
			flow{other, web, probe.UDP, 53}, tcp(lab.Outside, web, 80),
			tcp(client, web, 81), tcp(client, far, 81), flow{client, web, probe.ICMP, 0})
		fromClientOnly = append(fromClientOnly, tcp(client, other, 80),
			tcp(client, lab.Outside, 80), tcp(client, node.Name(), nodePort))
	}
	w.allowed(open...)
	w.allowed(toWebOnly...)
	w.allowed(fromClientOnly...)

	w.apply(toWeb)
	w.denied(toWebOnly...)
	w.allowed(open...)
	w.allowed(fromClientOnly...)

	w.apply(fromClient)
	w.denied(fromClientOnly...)
	w.denied(toWebOnly...)
	w.allowed(open...)

	must(t, w.Delete(t.Context(), toWeb))
	must(t, w.Delete(t.Context(), fromClient))
	w.allowed(toWebOnly...)
	w.allowed(fromClientOnly...)
	w.allowed(open...)
}

// service is a place that stands for the node's pod shop/web, as a Service would.
const service = "service"

var serviceAddrs = []netip.Addr{netip.MustParseAddr("10.96.0.10"),
	netip.MustParseAddr("fd00:10:96::a")}

// testHairpin: a pod that no other may talk to reaches itself through a Service, and no other does.
func (w *world) testHairpin() {
	t := w.t
	var self, others []flow
	for _, node := range w.Nodes() {
		web := on(node, "shop/web")
		for _, is4 := range []bool{true, false} {
			w.serveService(node, w.addr(web, is4), w.addr(service, is4))
		}
		self = append(self, tcp(web, service, 80))
		others = append(others, tcp(on(node, "shop/other"), service, 80))
	}
	w.allowed(self...)
	w.allowed(others...)

	w.apply(noWeb)
	w.denied(others...)
	w.allowed(self...)

	must(t, w.Delete(t.Context(), noWeb))
	w.allowed(others...)
}

// serveService does on a node what kube-proxy does: a pod that reaches itself so has its source
// rewritten.
func (w *world) serveService(node *lab.Node, backend, addr netip.Addr) {
	w.t.Helper()
	family, table := "ip", fmt.Sprintf("service%d", addr.BitLen())
	if addr.Is6() {
		family = "ip6"
	}
	for _, rule := range []string{
		"add table inet " + table,
		"add chain inet " + table + " before { type nat hook prerouting priority dstnat; }",
		"add chain inet " + table + " after { type nat hook postrouting priority srcnat; }",
		fmt.Sprintf("add rule inet %s before %s daddr %s tcp dport 80 dnat %s to %s", table, family,
			addr, family, backend),
		fmt.Sprintf("add rule inet %s after ct status dnat %s saddr %s %s daddr %s masquerade",
			table, family, backend, family, backend),
	} {
		_, err := node.Nft(w.t.Context(), rule)
		must(w.t, err)
	}
	w.t.Cleanup(func() {
		if _, err := node.Nft(context.WithoutCancel(w.t.Context()),
			"delete table inet "+table); err != nil {
			w.t.Error(err)
		}
	})
}
