package ruleset_test

import (
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

func (w *packetWorld) reach(from string, dst netip.AddrPort, connects bool) testnet.Result {
	w.T.Helper()
	if connects {
		return w.Hosts[from].MustReach(w.T, testnet.TCP, dst)
	}
	return w.Hosts[from].MustNotReach(w.T, testnet.TCP, dst)
}

// TestThroughDNAT: a Service and a NodePort are judged by the backend's address and port, and by
// the client's real address.
func TestThroughDNAT(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{})
	ends := map[string]netip.AddrPort{}
	for _, family := range packetworld.BothFamilies {
		node := w.Addr("node", family)
		w.DNAT(family, packetworld.Service[family], 80, "dev/db", 8080)
		w.DNAT(family, node, 30080, "dev/db", 8080)
		ends["service"+suffix(family)] = netip.AddrPortFrom(packetworld.Service[family], 80)
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
	w.SetPolicy(map[string]string{
		"dev/in":   `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: {{ip4 "out"}}/32}}, {ipBlock: {cidr: {{ip6 "out"}}/128}}], ports: [{port: 8080}]}]}`,
		"prod/out": `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}, {port: 30080}]}]}`,
		"dev/out":  `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 8080}]}]}`,
	})
	all("dev/web", true)   // egress to the backend's port, ingress by the client's label
	all("out", true)       // ingress by the client's real address
	all("node", true)      // its own node
	all("prod/web", false) // egress allows the Service's ports only: not what counts
	all("ops/probe", false)
	w.SetPolicy(
		map[string]string{
			"dev/in": `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}, {port: 30080}]}]}`})
	all("dev/web", false)
	all("out", false)
	all("node", true)
	w.Cluster.DeletePolicy(policy.Key{Namespace: "dev", Name: "in"})
	w.Cluster.DeletePolicy(policy.Key{Namespace: "prod", Name: "out"})
	w.Cluster.DeletePolicy(policy.Key{Namespace: "dev", Name: "out"})
	w.Apply()
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

// TestHairpin: a pod reaches itself through a Service under any policies; another replica doesn't.
func TestHairpin(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{})
	check := func(other bool) {
		t.Helper()
		for _, family := range packetworld.BothFamilies {
			end := netip.AddrPortFrom(packetworld.Service[family], 80)
			if r := w.reach("dev/web", end, true); r.OK && r.Reply[:7] != "dev/web" {
				t.Errorf("answered by %q", r.Reply)
			}
			w.reach("dev/db", end, other)
			w.reach("dev/web", netip.AddrPortFrom(w.Addr("dev/web", family), 80), true)
		}
	}
	for _, family := range packetworld.BothFamilies {
		w.DNAT(family, packetworld.Service[family], 80, "dev/web", 81)
	}
	check(true)
	w.SetPolicy(map[string]string{"dev/p": `{podSelector: {}, policyTypes: [Ingress, Egress]}`})
	check(false)
}

// TestPodToNodeSettingPackets: the setting opens the node to its own pods, and nothing else.
func TestPodToNodeSettingPackets(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{AllowPodToNode: true})
	w.Allowed("dev/web > node tcp/80", "dev/web > out tcp/80")
	w.SetPolicy(map[string]string{"dev/p": `{podSelector: {}, policyTypes: [Egress]}`})
	w.Allowed("dev/web > node tcp/80", "dev/web > node udp/81", "dev/web > node icmp")
	w.Denied("dev/web > out tcp/80", "dev/web > prod/web tcp/80")
}

// TestUnknownPodPackets: an attachment whose pod isn't known carries nothing in either direction,
// not even to its node, although no policy exists.
func TestUnknownPodPackets(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{})
	p := policy.Pod{
		ID: selector.Pod{Namespace: "ops", Name: "late", UID: "late"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.99"),
			netip.MustParseAddr("fd00:10:244:1::99")},
		Node: cases.NodeName,
	}
	h := w.Node.Pod("ops/late", p.Addresses...)
	w.Hosts["ops/late"] = h
	packetworld.Serve(h)
	flows := []string{
		"ops/late > out tcp/80", "ops/late > dev/web udp/80", "out > ops/late tcp/80",
		"dev/web > ops/late icmp", "ops/late > node tcp/80",
	}
	w.Denied(flows...)
	w.Cluster.SetEndpoint(policy.Endpoint{ID: h.Interface(), Pod: p.ID, Interface: h.Interface(),
		Addresses: p.Addresses})
	w.Apply()
	w.Denied(flows...)
	w.Cluster.SetPod(p)
	w.Apply()
	w.Allowed(flows...)
	w.Cluster.DeleteEndpoint(h.Interface())
	w.Apply()
	w.Denied(flows...)
}

// TestForeignSourceOnAVeth: a pod that sends with another's address gets nothing through, although
// both are open.
func TestForeignSourceOnAVeth(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{})
	for _, family := range packetworld.BothFamilies {
		target := netip.AddrPortFrom(w.Addr("out", family), 80)
		seen := w.counter(family, "tcp dport 80 tcp flags & (fin|syn|rst|ack) == syn")
		send := func(src netip.Addr) {
			t.Helper()
			err := w.Hosts["dev/web"].SendTCP(netip.AddrPortFrom(src, 4242), target,
				testnet.SYN, 1, 0)
			if err != nil {
				t.Fatal(err)
			}
		}
		send(w.Addr("dev/web", family))
		seen.expect(1) // control: its own address
		send(w.Addr("dev/db", family))
		seen.expectNoMore()
	}
}

// TestChangesOnRunningPods: labels of pods and namespaces, and the policies themselves, change
// under running pods.
func TestChangesOnRunningPods(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{})
	flow := "prod/web > dev/db tcp/80"
	w.Allowed(flow)
	w.SetPolicy(
		map[string]string{
			"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {role: client}}}]}]}`})
	w.Denied(flow)

	var client, server policy.Pod
	for _, in := range cases.Pods() {
		switch p := policy.PodFrom(in); in.Namespace + "/" + in.Name {
		case "prod/web":
			client = p
		case "dev/db":
			server = p
		}
	}
	client.Labels = selector.LabelSetOf(map[string]string{"role": "client"})
	w.Cluster.SetPod(client)
	w.Apply()
	w.Allowed(flow)
	w.Cluster.SetNamespace("prod", map[string]string{"env": "other"})
	w.Apply()
	w.Denied(flow)
	w.Cluster.SetNamespace("prod", map[string]string{"env": "prod"})
	w.Apply()
	w.Allowed(flow)
	w.SetPolicy(map[string]string{
		"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 81}]}]}`})
	w.Denied(flow)
	w.Allowed("prod/web > dev/db tcp/81")
	server.Labels = selector.LabelSetOf(map[string]string{"app": "free"})
	w.Cluster.SetPod(server)
	w.Apply()
	w.Allowed(flow)
}

// TestBridgedPods: pods that the stock bridge plugin wires are dispatched by address; those not
// known are dropped.
func TestBridgedPods(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{PodRanges: packetworld.BridgedRanges})
	flows := []string{"ops/client > ops/server tcp/80", "out > ops/server udp/80",
		"ops/client > out tcp/80", "ops/client > node tcp/80", "dev/web > ops/server tcp/80"}
	pods := w.BridgePods("client", "server")
	w.Denied(flows...)
	for _, p := range pods {
		w.Cluster.SetPod(p)
		w.Cluster.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID, Addresses: p.Addresses})
	}
	w.Apply()
	w.Allowed(flows...)
	w.SetPolicy(
		map[string]string{
			"ops/p": `{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}`})
	w.Allowed("ops/client > ops/server tcp/80", "ops/client > out tcp/80",
		"node > ops/server tcp/81")
	w.Denied("ops/client > ops/server tcp/81", "out > ops/server udp/80",
		"dev/web > ops/server tcp/80")
	w.SetPolicy(map[string]string{
		"ops/q": `{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}`})
	w.Denied("ops/client > ops/server tcp/80", "ops/client > out tcp/80",
		"ops/client > node tcp/80")
}

// TestNodeReachesItself: by its address on a bridge of pods, which is in the guarded ranges, and by
// one that the status of a pod says, which is isolated.
func TestNodeReachesItself(t *testing.T) {
	t.Parallel()
	const flow = "node > node tcp/80"
	w := newPacketWorld(t, ruleset.Config{PodRanges: packetworld.BridgedRanges})
	client := w.BridgePods("client")[0]
	node := w.Hosts["node"]
	onBridge := func() {
		t.Helper()
		for _, a := range []string{"10.88.0.1", "fd88::1"} {
			node.MustReach(t, testnet.TCP, netip.AddrPortFrom(netip.MustParseAddr(a), 80))
		}
	}
	onBridge()
	w.Allowed(flow)
	client.Addresses = append(client.Addresses, node.Addr4(), node.Addr6(),
		netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("fd88::1"))
	w.Cluster.SetPod(client)
	w.Cluster.SetEndpoint(policy.Endpoint{ID: "status/ops/client", Pod: client.ID,
		Addresses: client.Addresses, FromStatus: true})
	w.Apply()
	w.Allowed("ops/client > node tcp/80") // control: it is known
	w.SetPolicy(map[string]string{
		"ops/p": `{podSelector: {matchLabels: {app: client}}, policyTypes: [Ingress, Egress]}`})
	w.Denied("ops/client > node tcp/80", "ops/client > out tcp/80", "out > ops/client tcp/80")
	w.Allowed(flow, "node > ops/client tcp/80", "node > out tcp/80", "out > node tcp/80")
	onBridge()
}
