package controllers

import (
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/testnet"
)

// service is a virtual address of each family, as of a ClusterIP.
var service = map[int]netip.Addr{4: netip.MustParseAddr("10.96.0.10"), 6: netip.MustParseAddr("fd00:10:96::10")}

var bothFamilies = []int{4, 6}

// dnat sends connections to an address and port to a pod's port.
func (w *packetWorld) dnat(family int, from netip.Addr, port uint16, to string, toPort uint16) {
	w.t.Helper()
	w.node.DNAT(testnet.TCP, netip.AddrPortFrom(from, port), netip.AddrPortFrom(w.addr(to, family), toPort))
}

func (w *packetWorld) reach(from string, dst netip.AddrPort, connects bool) testnet.Result {
	w.t.Helper()
	if connects {
		return w.hosts[from].MustReach(w.t, testnet.TCP, dst)
	}
	return w.hosts[from].MustNotReach(w.t, testnet.TCP, dst)
}

// TestThroughDNAT: a Service and a NodePort are judged by the backend's
// address and port, and by the client's real address.
func TestThroughDNAT(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, RulesetConfig{})
	ends := map[string]netip.AddrPort{}
	for _, family := range bothFamilies {
		node := w.addr("node", family)
		w.dnat(family, service[family], 80, "dev/db", 8080)
		w.dnat(family, node, 30080, "dev/db", 8080)
		ends["service"+suffix(family)] = netip.AddrPortFrom(service[family], 80)
		ends["nodePort"+suffix(family)] = netip.AddrPortFrom(node, 30080)
	}
	all := func(from string, connects bool) {
		t.Helper()
		for name, end := range ends {
			if r := w.reach(from, end, connects); connects && r.OK && r.Reply[:6] != "dev/db" {
				t.Errorf("%s: answered by %q", name, r.Reply)
			}
		}
	}
	clients := []string{"dev/web", "prod/web", "out", "node"}
	for _, from := range clients {
		all(from, true)
	}
	w.setPolicy(map[string]string{
		"dev/in":   `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: {{ip4 "out"}}/32}}, {ipBlock: {cidr: {{ip6 "out"}}/128}}], ports: [{port: 8080}]}]}`,
		"prod/out": `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}, {port: 30080}]}]}`,
		"dev/out":  `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 8080}]}]}`,
	})
	all("dev/web", true)   // egress to the backend's port, ingress by the client's label
	all("out", true)       // ingress by the client's real address
	all("node", true)      // its own node
	all("prod/web", false) // egress allows the Service's ports only: not what counts
	all("ops/probe", false)
	w.setPolicy(map[string]string{"dev/in": `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}, {port: 30080}]}]}`})
	all("dev/web", false)
	all("out", false)
	all("node", true)
	w.cluster.DeletePolicy(policy.Key{Namespace: "dev", Name: "in"})
	w.cluster.DeletePolicy(policy.Key{Namespace: "prod", Name: "out"})
	w.cluster.DeletePolicy(policy.Key{Namespace: "dev", Name: "out"})
	w.apply()
	for _, from := range clients {
		all(from, true)
	}
}

func suffix(family int) string {
	if family == 4 {
		return "/v4"
	}
	return "/v6"
}

// TestHairpin: a pod reaches itself through a Service, whatever its policies;
// another replica doesn't.
func TestHairpin(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, RulesetConfig{})
	check := func(other bool) {
		t.Helper()
		for _, family := range bothFamilies {
			end := netip.AddrPortFrom(service[family], 80)
			if r := w.reach("dev/web", end, true); r.OK && r.Reply[:7] != "dev/web" {
				t.Errorf("answered by %q", r.Reply)
			}
			w.reach("dev/db", end, other)
			w.reach("dev/web", netip.AddrPortFrom(w.addr("dev/web", family), 80), true)
		}
	}
	for _, family := range bothFamilies {
		w.dnat(family, service[family], 80, "dev/web", 81)
	}
	check(true)
	w.setPolicy(map[string]string{"dev/p": `{podSelector: {}, policyTypes: [Ingress, Egress]}`})
	check(false)
}

// TestPodToNodeSettingPackets: the setting opens the node to its own pods, and
// nothing else.
func TestPodToNodeSettingPackets(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, RulesetConfig{AllowPodToNode: true})
	w.allowed("dev/web > node tcp/80", "dev/web > out tcp/80")
	w.setPolicy(map[string]string{"dev/p": `{podSelector: {}, policyTypes: [Egress]}`})
	w.allowed("dev/web > node tcp/80", "dev/web > node udp/81", "dev/web > node icmp")
	w.denied("dev/web > out tcp/80", "dev/web > prod/web tcp/80")
}

// TestUnknownPodPackets: an attachment whose pod isn't known carries nothing
// in either direction, not even to its node, although no policy exists.
func TestUnknownPodPackets(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, RulesetConfig{})
	p := policy.Pod{
		ID:        selector.Pod{Namespace: "ops", Name: "late", UID: "late"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.99"), netip.MustParseAddr("fd00:10:244:1::99")},
		Node:      cases.NodeName,
	}
	h := w.node.Pod("ops/late", p.Addresses...)
	w.hosts["ops/late"] = h
	serve(h)
	flows := []string{
		"ops/late > out tcp/80", "ops/late > dev/web udp/80", "out > ops/late tcp/80", "dev/web > ops/late icmp", "ops/late > node tcp/80",
	}
	w.denied(flows...)
	w.cluster.SetEndpoint(policy.Endpoint{ID: h.Interface(), Pod: p.ID, Interface: h.Interface(), Addresses: p.Addresses})
	w.apply()
	w.denied(flows...)
	w.cluster.SetPod(p)
	w.apply()
	w.allowed(flows...)
	w.cluster.DeleteEndpoint(h.Interface())
	w.apply()
	w.denied(flows...)
}

// TestForeignSourceOnAVeth: a pod that sends with another's address gets
// nothing through, although both are open.
func TestForeignSourceOnAVeth(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, RulesetConfig{})
	for _, family := range bothFamilies {
		target := netip.AddrPortFrom(w.addr("out", family), 80)
		seen := w.counter(family, "tcp dport 80 tcp flags & (fin|syn|rst|ack) == syn")
		send := func(src netip.Addr) {
			t.Helper()
			if err := w.hosts["dev/web"].SendTCP(netip.AddrPortFrom(src, 4242), target, testnet.SYN, 1, 0); err != nil {
				t.Fatal(err)
			}
		}
		send(w.addr("dev/web", family))
		seen.expect(1) // control: its own address
		send(w.addr("dev/db", family))
		seen.expectNoMore()
	}
}

// TestChangesOnRunningPods: labels of pods and namespaces, and the policies
// themselves, change under running pods.
func TestChangesOnRunningPods(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, RulesetConfig{})
	flow := "prod/web > dev/db tcp/80"
	w.allowed(flow)
	w.setPolicy(map[string]string{"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {role: client}}}]}]}`})
	w.denied(flow)

	var client, server policy.Pod
	for _, in := range cases.Pods() {
		switch p := policy.PodFrom(in); in.Namespace + "/" + in.Name {
		case "prod/web":
			client = p
		case "dev/db":
			server = p
		}
	}
	client.Labels = map[string]string{"role": "client"}
	w.cluster.SetPod(client)
	w.apply()
	w.allowed(flow)
	w.cluster.SetNamespace("prod", map[string]string{"env": "other"})
	w.apply()
	w.denied(flow)
	w.cluster.SetNamespace("prod", map[string]string{"env": "prod"})
	w.apply()
	w.allowed(flow)
	w.setPolicy(map[string]string{"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 81}]}]}`})
	w.denied(flow)
	w.allowed("prod/web > dev/db tcp/81")
	server.Labels = map[string]string{"app": "free"}
	w.cluster.SetPod(server)
	w.apply()
	w.allowed(flow)
}

var bridgedRanges = []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16"), netip.MustParsePrefix("fd88::/64")}

// bridgePods wires pods of namespace ops by the stock bridge plugin. Nobody is
// told of them.
func (w *packetWorld) bridgePods(names ...string) (pods []policy.Pod) {
	w.t.Helper()
	for i, name := range names {
		octet := byte(10 + i)
		p := policy.Pod{
			ID: selector.Pod{Namespace: "ops", Name: name, UID: name}, Node: cases.NodeName, Labels: map[string]string{"app": name},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 88, 0, octet}), netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x88, 15: octet})},
		}
		h := w.node.BridgedPod("ops/"+name, p.Addresses...)
		w.hosts["ops/"+name] = h
		serve(h)
		pods = append(pods, p)
	}
	return pods
}

// TestBridgedPods: pods that the stock bridge plugin wires are dispatched by
// address; those not known are dropped.
func TestBridgedPods(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, RulesetConfig{PodRanges: bridgedRanges})
	flows := []string{"ops/client > ops/server tcp/80", "out > ops/server udp/80", "ops/client > out tcp/80", "ops/client > node tcp/80", "dev/web > ops/server tcp/80"}
	pods := w.bridgePods("client", "server")
	w.denied(flows...)
	for _, p := range pods {
		w.cluster.SetPod(p)
		w.cluster.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID, Addresses: p.Addresses})
	}
	w.apply()
	w.allowed(flows...)
	w.setPolicy(map[string]string{"ops/p": `{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}`})
	w.allowed("ops/client > ops/server tcp/80", "ops/client > out tcp/80", "node > ops/server tcp/81")
	w.denied("ops/client > ops/server tcp/81", "out > ops/server udp/80", "dev/web > ops/server tcp/80")
	w.setPolicy(map[string]string{"ops/q": `{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}`})
	w.denied("ops/client > ops/server tcp/80", "ops/client > out tcp/80", "ops/client > node tcp/80")
}
