package ruleset_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/ruleworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// TestHostPorts: a port of the node leads to the pod, from everywhere, and the pod's policy judges
// it by the pod's port.
func TestHostPorts(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{Network: ruleworld.Network()})
	web := w.Hosts["dev/web"]
	var ends []hostPortEnd
	for _, family := range packetworld.BothFamilies {
		node := w.Addr("node", family)
		for _, from := range []string{"out", "dev/db", "prod/web", "node", "dev/web"} {
			for _, proto := range []testnet.Protocol{testnet.TCP, testnet.UDP, testnet.SCTP} {
				ends = append(ends, hostPortEnd{from, proto, netip.AddrPortFrom(node, 30080)})
			}
		}
	}
	ends = append(ends,
		hostPortEnd{"node", testnet.TCP, netip.MustParseAddrPort("127.0.0.1:30080")},
		hostPortEnd{"node", testnet.UDP, netip.MustParseAddrPort("127.0.0.1:30080")},
		hostPortEnd{"out", testnet.TCP, netip.AddrPortFrom(w.Addr("node", 4), 30081)})
	for _, e := range ends {
		if result := w.Hosts[e.from].Connect(e.proto, e.to); result.OK {
			t.Errorf("%s without host ports: %s", e, result)
		}
	}
	w.routeLoopback("dev/web")
	id := web.Interface()
	w.Render.SetHostPorts(id, []ruleset.HostPort{
		{HostPort: 30080, ContainerPort: 80, Protocol: policy.ProtocolTCP},
		{HostPort: 30080, ContainerPort: 80, Protocol: policy.ProtocolUDP},
		{HostPort: 30080, ContainerPort: 80, Protocol: policy.ProtocolSCTP},
		{HostIP: w.Addr("node", 4), HostPort: 30081, ContainerPort: 81,
			Protocol: policy.ProtocolTCP},
		{HostIP: w.Addr("out", 4), HostPort: 30082, ContainerPort: 81,
			Protocol: policy.ProtocolTCP},
	})
	w.touch("dev/web")
	for _, e := range ends {
		if result := w.Hosts[e.from].MustReach(t, e.proto, e.to); result.OK &&
			!strings.HasPrefix(result.Reply, "dev/web ") {
			t.Errorf("%s: answered by %q", e, result.Reply)
		}
	}
	client := clientOf(t, w.Hosts["out"].MustReach(t, testnet.TCP, ends[0].to))
	if client.Addr() != w.Addr("out", 4) {
		t.Errorf("the pod sees %s as its client", client)
	}
	// The one whose address isn't the node's, and what isn't the node's at all.
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(w.Addr("node", 4), 30082),
		netip.AddrPortFrom(w.Addr("dev/db", 4), 30080)} {
		if result := w.Hosts["out"].Connect(testnet.TCP, to); result.OK {
			t.Errorf("%s: %s", to, result)
		}
	}
	w.SetPolicy(
		map[string]string{
			"dev/p": `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}, {port: 80, protocol: UDP}, {port: 80, protocol: SCTP}]}]}`})
	for _, e := range ends {
		switch e.from {
		case "dev/db", "dev/web", "node":
			w.Hosts[e.from].MustReach(t, e.proto, e.to)
		default:
			w.Hosts[e.from].MustNotReach(t, e.proto, e.to)
		}
	}
	w.Cluster.DeleteEndpoint(id)
	w.Apply()
	listing := w.Node.Nft("list", "map", "inet", "sluice", ruleset.AnyHostPortMap("v4"))
	if strings.Contains(listing, "30080") {
		t.Errorf("host ports outlive their pod:\n%s", listing)
	}
}

// Of a pod's own host ports the one for fewer addresses counts, in any order. The control: without
// it, the other one does.
func TestHostPortForFewerAddressesCounts(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{Network: ruleworld.Network()})
	id := w.Hosts["dev/web"].Interface()
	w.routeLoopback("dev/web")
	node4, node6 := w.Addr("node", 4), w.Addr("node", 6)
	everywhere := ruleset.HostPort{HostPort: 30090, ContainerPort: 80, Protocol: policy.ProtocolTCP}
	closed := func(hostIP netip.Addr) ruleset.HostPort { // to a port where no program listens
		return ruleset.HostPort{HostIP: hostIP, HostPort: 30090, ContainerPort: 4,
			Protocol: policy.ProtocolTCP}
	}
	to4, to6 := netip.AddrPortFrom(node4, 30090), netip.AddrPortFrom(node6, 30090)
	loopback := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 30090)
	for _, test := range []struct {
		narrower      []ruleset.HostPort
		open4, open6  bool
		openLoopback4 bool
	}{
		{nil, true, true, true},
		{[]ruleset.HostPort{closed(node4)}, false, true, true},
		{[]ruleset.HostPort{closed(node6)}, true, false, true},
		{[]ruleset.HostPort{closed(netip.IPv4Unspecified())}, false, true, false},
		{[]ruleset.HostPort{closed(netip.IPv6Unspecified())}, true, false, true},
		{[]ruleset.HostPort{closed(netip.IPv4Unspecified()),
			{HostIP: node4, HostPort: 30090, ContainerPort: 80, Protocol: policy.ProtocolTCP}},
			true, true, false},
	} {
		ports := append([]ruleset.HostPort{everywhere}, test.narrower...)
		for range 2 {
			w.Render.SetHostPorts(id, ports)
			w.touch("dev/web")
			for _, c := range []struct {
				from string
				to   netip.AddrPort
				open bool
			}{{"out", to4, test.open4}, {"out", to6, test.open6}, {"node", to4, test.open4},
				{"node", loopback, test.openLoopback4}} {
				if c.open {
					w.Hosts[c.from].MustReach(t, testnet.TCP, c.to)
				} else if r := w.Hosts[c.from].Connect(testnet.TCP, c.to); r.OK {
					t.Errorf("%v: %s to %s: %s", ports, c.from, c.to, r)
				}
			}
			slices.Reverse(ports)
		}
	}
}

// A host port takes nothing that a Service of its number has, as kube-proxy leads it, and nothing
// at an address that is local but not the node's own. Controls: without the Service, and at the
// node's own address, it is the host port's.
func TestHostPortsLeaveOthersAlone(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{Network: ruleworld.Network()})
	id := w.Hosts["dev/web"].Interface()
	virtual4, virtual6 := netip.MustParseAddr("203.0.113.99"),
		netip.MustParseAddr("2001:db8:99::99")
	// as kube-proxy in IPVS mode has Services' addresses, and routers theirs
	for _, virtual := range []netip.Addr{virtual4, virtual6} {
		w.Node.AddAddr(virtual)
	}
	w.Render.SetHostPorts(id, []ruleset.HostPort{
		// the node's own process has it too
		{HostPort: 80, ContainerPort: 80, Protocol: policy.ProtocolTCP},
		{HostPort: 30099, ContainerPort: 80, Protocol: policy.ProtocolTCP},
		{HostIP: virtual4, HostPort: 80, ContainerPort: 80, Protocol: policy.ProtocolTCP},
	})
	w.touch("dev/web")
	answers := func(from string, to netip.AddrPort, by string) {
		t.Helper()
		if r := w.Hosts[from].MustReach(t, testnet.TCP, to); !strings.HasPrefix(r.Reply, by+" ") {
			t.Errorf("%s to %s: answered by %q, want %s", from, to, r.Reply, by)
		}
	}
	for _, from := range []string{"out", "node", "dev/db"} {
		answers(from, netip.AddrPortFrom(virtual4, 80), "node")
		answers(from, netip.AddrPortFrom(virtual6, 80), "node")
		answers(from, netip.AddrPortFrom(w.Addr("node", 4), 80), "dev/web")
		answers(from, netip.AddrPortFrom(w.Addr("node", 6), 80), "dev/web")
	}
	for _, family := range packetworld.BothFamilies {
		to := netip.AddrPortFrom(w.Addr("node", family), 30099)
		for _, from := range []string{"out", "node", "dev/web"} {
			answers(from, to, "dev/web")
		}
	}
	w.Node.NftInput(fmt.Sprintf(`table inet kube-proxy {
		chain services { ip daddr %s tcp dport 30099 dnat ip to %s:80; ip6 daddr %s tcp dport 30099 dnat ip6 to [%s]:80; }
		chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
		chain nat-output { type nat hook output priority -100; jump services; }
	}`, w.Addr("node", 4), w.Addr("dev/db", 4), w.Addr("node", 6), w.Addr("dev/db", 6)))
	for _, family := range packetworld.BothFamilies {
		to := netip.AddrPortFrom(w.Addr("node", family), 30099)
		for _, from := range []string{"out", "node", "dev/web"} {
			answers(from, to, "dev/db")
		}
	}
}

type hostPortEnd struct {
	from  string
	proto testnet.Protocol
	to    netip.AddrPort
}

func (e hostPortEnd) String() string { return fmt.Sprintf("%s to %s %s", e.from, e.proto, e.to) }

// touch has a pod rendered again.
func (w *packetWorld) touch(name string) {
	w.T.Helper()
	id := w.Hosts[name].Interface()
	e, ok := w.Cluster.Endpoint(id)
	if !ok {
		w.T.Fatalf("no endpoint %s", name)
	}
	w.Cluster.DeleteEndpoint(id)
	w.Apply()
	w.Cluster.SetEndpoint(policy.Endpoint{ID: id, Pod: e.Pod, Interface: e.Interface,
		Addresses: e.Addresses})
	w.Apply()
}

// routeLoopback lets the node's loopback be reached by, and reach, a pod, as package cni does for
// pods with host ports.
func (w *packetWorld) routeLoopback(name string) {
	w.T.Helper()
	key := "/proc/sys/net/ipv4/conf/" + w.Hosts[name].Interface() + "/route_localnet"
	if err := w.Node.Do(func() error { return os.WriteFile(key, []byte("1"), 0o600) }); err != nil {
		w.T.Fatal(err)
	}
}
