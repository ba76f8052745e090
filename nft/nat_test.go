package nft

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/test/testnet"
)

// These tests send packets through what translates addresses. Each begins with
// what happens without the rule.

const servedPort, hostPort = 8080, 80

var (
	natPods    = []netip.Addr{addr("10.244.1.2"), addr("fd00:10:244:1::2")}
	natOutside = []netip.Addr{addr("203.0.113.9"), addr("2001:db8:9::9")}
	natNode    = []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")}
	natNode2   = []netip.Addr{addr("192.0.2.2"), addr("2001:db8::2")}
)

// natNet is a node with a pod and a host outside. The pod and the host serve.
type natNet struct {
	t         *testing.T
	node      *testnet.Node
	pod, away *testnet.Host
	table     *Table
}

func newNATNet(t *testing.T) *natNet {
	t.Helper()
	t.Parallel()
	n := &natNet{t: t, node: testnet.NewNode(t)}
	for _, a := range append(natNode, natNode2...) {
		n.node.AddAddr(a)
	}
	n.pod, n.away = n.node.Pod("web", natPods...), n.node.Outside("away", natOutside...)
	for _, h := range []*testnet.Host{n.pod, n.away} {
		h.ServeTCP(servedPort)
		h.ServeUDP(servedPort)
		h.ServeSCTP(servedPort)
	}
	table, err := Open(Options{NetNS: n.node.NSFd()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustClose(t, table) })
	n.table = table
	return n
}

// install makes the table the chains and sets.
func (n *natNet) install(objects ...any) {
	n.t.Helper()
	r := NewRuleset()
	for _, o := range objects {
		switch o := o.(type) {
		case *Chain:
			r.AddChain(o)
		case *Set:
			r.AddSet(o)
		}
	}
	mustSync(n.t, n.table, r)
	mustMatch(n.t, n.table)
}

func natChain(hook Hook, rules ...Rule) *Chain {
	base := &Base{Type: NATChain, Hook: hook, Priority: -100}
	if hook == HookPostrouting || hook == HookInput {
		base.Priority = 100
	}
	return &Chain{Name: "nat/" + hook.String(), Base: base, Rules: rules}
}

// seenFrom connects, and returns the client's address as the server saw it.
func (n *natNet) seenFrom(from *testnet.Host, proto testnet.Protocol, to netip.Addr, opts ...testnet.Option) netip.AddrPort {
	n.t.Helper()
	r := from.MustReach(n.t, proto, netip.AddrPortFrom(to, servedPort), opts...)
	_, seen, _ := strings.Cut(r.Reply, " ")
	client, err := netip.ParseAddrPort(seen)
	if err != nil {
		n.t.Fatalf("%s to %s: %v", proto, to, err)
	}
	return client
}

var withPorts = []testnet.Protocol{testnet.TCP, testnet.UDP, testnet.SCTP}

func TestMasquerade(t *testing.T) {
	n := newNATNet(t)
	const first = 16384
	var port uint16 = 4000
	check := func(what string, masqueraded, ranged bool) {
		t.Helper()
		for i, to := range natOutside {
			for _, proto := range withPorts {
				port++
				seen := n.seenFrom(n.pod, proto, to, testnet.FromPort(port))
				if (seen.Addr() != natPods[i]) != masqueraded {
					t.Errorf("%s: %s to %s comes from %s", what, proto, to, seen)
				}
				if ranged && seen.Port() < first || !ranged && seen.Port() != port {
					t.Errorf("%s: %s to %s from port %d comes from port %d", what, proto, to, port, seen.Port())
				}
			}
		}
	}
	check("without", false, false)
	n.install(natChain(HookPostrouting, rule(Masquerade{})))
	check("masquerade", true, false)
	var rules []Rule
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
		rules = append(rules, rule(MatchProto{proto}, Masquerade{First: first, Last: 65535, FullyRandom: true}))
	}
	n.install(natChain(HookPostrouting, rules...))
	check("to a range", true, true)
	n.install(natChain(HookPostrouting, append([]Rule{rule(MatchPrefix{SrcAddr4, netip.MustParsePrefix("10.244.0.0/16")}, ret), rule(MatchPrefix{SrcAddr6, netip.MustParsePrefix("fd00:10:244::/48")}, ret)}, rules...)...))
	check("excepted", false, false)
}

// A port that lies in the range stays, unless it is to be random.
func TestMasqueradeAtRandom(t *testing.T) {
	n := newNATNet(t)
	changed := func(random bool) (count int) {
		n.install(natChain(HookPostrouting, rule(MatchProto{unix.IPPROTO_UDP}, Masquerade{First: 16384, Last: 65535, FullyRandom: random})))
		for i := range uint16(8) {
			port := 30000 + i
			if random {
				port += 1000
			}
			if n.seenFrom(n.pod, testnet.UDP, natOutside[0], testnet.FromPort(port)).Port() != port {
				count++
			}
		}
		return count
	}
	if got := changed(false); got != 0 {
		t.Errorf("%d of 8 ports within the range were changed", got)
	}
	if got := changed(true); got < 7 { // the same port by chance, twice: 1 in 10^8
		t.Errorf("%d of 8 ports were changed", got)
	}
}

func TestSNAT(t *testing.T) {
	n := newNATNet(t)
	for i, to := range natOutside {
		if seen := n.seenFrom(n.pod, testnet.TCP, to); seen.Addr() != natPods[i] {
			t.Errorf("without: to %s comes from %s", to, seen)
		}
	}
	out := MatchIface{OutIface, n.away.Interface()}
	n.install(natChain(HookPostrouting, rule(out, SNAT{natNode2[0]}), rule(out, SNAT{natNode2[1]})))
	for i, to := range natOutside {
		for _, proto := range withPorts {
			if seen := n.seenFrom(n.pod, proto, to); seen.Addr() != natNode2[i] {
				t.Errorf("%s to %s comes from %s, not %s", proto, to, seen, natNode2[i])
			}
		}
	}
}

// hostPorts are NAT maps and rules as host ports take them: by address,
// protocol and port, or for every address of the node.
func hostPorts(anyAddr bool) (objects []any, rules []Rule) {
	protos := []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP}
	for i, field := range []Field{DstAddr4, DstAddr6} {
		key := []Field{field, L4Proto, DstPort}
		if anyAddr {
			key = key[1:]
		}
		m := &Set{Name: "hostports" + string('4'+rune(2*i)), Key: key, Targets: field, Elements: map[Element]Verdict{}}
		for _, proto := range protos {
			e := AddrProtoPortElement(natNode[i], proto, hostPort)
			if anyAddr {
				e = ProtoPortElement(proto, hostPort)
			}
			m.Elements[e] = NATTarget(netip.AddrPortFrom(natPods[i], servedPort))
		}
		objects, rules = append(objects, m), append(rules, rule(MatchLocalDst{}, DNAT{key, m.Name}))
	}
	return objects, rules
}

func TestDNATFromOutside(t *testing.T) {
	n := newNATNet(t)
	reach := func(what string, addrs []netip.Addr, want bool) {
		t.Helper()
		for _, a := range addrs {
			for _, proto := range withPorts {
				to := netip.AddrPortFrom(a, hostPort)
				if !want {
					if r := n.away.Connect(proto, to, testnet.WithTimeout(testnet.DefaultTimeout/3)); r.OK {
						t.Errorf("%s: %s to %s works: %s", what, proto, to, r)
					}
					continue
				}
				if r := n.away.MustReach(t, proto, to); !strings.HasPrefix(r.Reply, "web ") {
					t.Errorf("%s: %s to %s: %s", what, proto, to, r)
				}
			}
		}
	}
	reach("without", natNode, false)
	maps, rules := hostPorts(false)
	n.install(append(maps, natChain(HookPrerouting, rules...))...)
	reach("by address", natNode, true)
	reach("by address, another one", natNode2, false)
	maps, rules = hostPorts(true)
	n.install(append(maps, natChain(HookPrerouting, rules...))...)
	reach("by port", natNode, true)
	reach("by port, another address", natNode2, true)

	// An element that goes takes the translation of new connections away.
	p := Patch{Sets: map[string]*SetPatch{
		"hostports4": {Remove: map[Element]struct{}{ProtoPortElement(unix.IPPROTO_TCP, hostPort): {}}},
	}}
	mustApply(t, n.table, p)
	mustMatch(t, n.table)
	if r := n.away.Connect(testnet.TCP, netip.AddrPortFrom(natNode[0], hostPort)); !errors.Is(r.Err, testnet.ErrReset) {
		t.Errorf("the element is gone, but: %s", r)
	}
	n.away.MustReach(t, testnet.UDP, netip.AddrPortFrom(natNode[0], hostPort))
	// One with another target leads there.
	p = Patch{Sets: map[string]*SetPatch{"hostports4": {Put: map[Element]Verdict{
		ProtoPortElement(unix.IPPROTO_TCP, hostPort): NATTarget(netip.AddrPortFrom(natOutside[0], servedPort)),
	}}}}
	mustApply(t, n.table, p)
	mustMatch(t, n.table)
	if r := n.pod.MustReach(t, testnet.TCP, netip.AddrPortFrom(natNode[0], hostPort)); !strings.HasPrefix(r.Reply, "away ") {
		t.Errorf("the element leads elsewhere, but: %s", r)
	}
}

// The node itself reaches a host port by its addresses and by 127.0.0.1, and a
// pod its own.
func TestDNATOfTheNodesOwn(t *testing.T) {
	n := newNATNet(t)
	loopback := addr("127.0.0.1")
	if err := n.node.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0)
	}); err != nil {
		t.Fatal(err)
	}
	self := n.node.Host()
	targets := append([]netip.Addr{loopback}, natNode...)
	for _, a := range targets {
		self.MustNotReach(t, testnet.TCP, netip.AddrPortFrom(a, hostPort))
	}
	maps, rules := hostPorts(true)
	// What was translated and would come from loopback, or from the pod itself,
	// must come from the node.
	back := natChain(HookPostrouting, rule(MatchDNATed{}, MatchPrefix{SrcAddr4, netip.MustParsePrefix("127.0.0.0/8")}, Masquerade{}))
	n.install(append(maps, natChain(HookPrerouting, rules...), natChain(HookOutput, rules...), back)...)
	for _, a := range targets {
		for _, proto := range []testnet.Protocol{testnet.TCP, testnet.UDP} {
			self.MustReach(t, proto, netip.AddrPortFrom(a, hostPort))
		}
	}

	for _, a := range natNode {
		n.pod.MustNotReach(t, testnet.TCP, netip.AddrPortFrom(a, hostPort))
	}
	for i, a := range natPods {
		field := []Field{SrcAddr4, SrcAddr6}[i]
		back.Rules = append(back.Rules, rule(MatchDNATed{}, MatchAddr{field, a}, MatchAddr{field + (DstAddr4 - SrcAddr4), a}, Masquerade{}))
	}
	n.install(append(maps, natChain(HookPrerouting, rules...), natChain(HookOutput, rules...), back)...)
	for _, a := range natNode {
		n.pod.MustReach(t, testnet.TCP, netip.AddrPortFrom(a, hostPort))
	}
	// Connections that nothing translates aren't masqueraded.
	if seen := n.seenFrom(n.pod, testnet.TCP, natOutside[0]); seen.Addr() != natPods[0] {
		t.Errorf("the pod's own connection comes from %s", seen)
	}
}

func TestNoTrack(t *testing.T) {
	n := newNATNet(t)
	tracking := &Chain{Name: "judge", Base: &Base{Hook: HookForward}, Rules: []Rule{rule(MatchCT{CTInvalid}, drop)}}
	toNode := &Chain{Name: "send", Base: &Base{Hook: HookOutput}, Rules: []Rule{rule(MatchCT{CTInvalid}, drop)}}
	tracked := func(port uint16, from *testnet.Host) (found bool) {
		t.Helper()
		for i, to := range natOutside {
			n.seenFrom(from, testnet.UDP, to, testnet.FromPort(port))
			err := n.node.Do(func() error {
				flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.InetFamily([]uint8{unix.AF_INET, unix.AF_INET6}[i]))
				for _, f := range flows {
					found = found || f.Forward.SrcPort == port
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return found
	}
	n.install(tracking, toNode)
	if !tracked(5001, n.pod) || !tracked(5002, n.node.Host()) {
		t.Fatal("without: there is no conntrack entry")
	}
	raw := func(hook Hook) *Chain {
		return &Chain{Name: "raw/" + hook.String(), Base: &Base{Hook: hook, Priority: -300}, Rules: []Rule{
			rule(MatchPort{unix.IPPROTO_UDP, servedPort, servedPort}, NoTrack{}),
			rule(InSet{[]Field{SrcAddr4}, "servers4"}, NoTrack{}),
			rule(InSet{[]Field{SrcAddr6}, "servers6"}, NoTrack{}),
		}}
	}
	servers := func(name string, field Field, a netip.Addr) *Set {
		return &Set{Name: name, Key: []Field{field}, Elements: map[Element]Verdict{AddrElement(a): {}}}
	}
	n.install(tracking, toNode, raw(HookPrerouting), raw(HookOutput),
		servers("servers4", SrcAddr4, natOutside[0]), servers("servers6", SrcAddr6, natOutside[1]))
	if tracked(5003, n.pod) || tracked(5004, n.node.Host()) {
		t.Error("there is a conntrack entry")
	}
}
