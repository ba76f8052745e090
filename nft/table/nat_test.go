package table

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/testnet"
)

// These tests send packets through what translates addresses. Each begins with what happens without
// the rule.

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
	r := nft.NewRuleset()
	for _, o := range objects {
		switch o := o.(type) {
		case *nft.Chain:
			r.AddChain(o)
		case *nft.Set:
			r.AddSet(o)
		}
	}
	mustSync(n.t, n.table, r)
	mustMatch(n.t, n.table)
}

func natChain(hook nft.Hook, rules ...nft.Rule) *nft.Chain {
	base := &nft.Base{Type: nft.NATChain, Hook: hook, Priority: -100}
	if hook == nft.HookPostrouting || hook == nft.HookInput {
		base.Priority = 100
	}
	return &nft.Chain{Name: "nat/" + hook.String(), Base: base, Rules: rules}
}

// seenFrom connects, and returns the client's address as the server saw it.
func (n *natNet) seenFrom(from *testnet.Host, proto testnet.Protocol, to netip.Addr,
	opts ...testnet.Option) netip.AddrPort {
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
					t.Errorf("%s: %s to %s from port %d comes from port %d", what, proto, to, port,
						seen.Port())
				}
			}
		}
	}
	check("without", false, false)
	n.install(natChain(nft.HookPostrouting, rule(nft.Masquerade{})))
	check("masquerade", true, false)
	var rules []nft.Rule
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
		rules = append(rules, rule(nft.MatchProto{Proto: proto},
			nft.Masquerade{First: first, Last: 65535, FullyRandom: true}))
	}
	n.install(natChain(nft.HookPostrouting, rules...))
	check("to a range", true, true)
	n.install(natChain(nft.HookPostrouting,
		append(
			[]nft.Rule{
				rule(nft.MatchPrefix{Field: nft.SrcAddr4,
					Prefix: netip.MustParsePrefix("10.244.0.0/16")}, ret),
				rule(nft.MatchPrefix{Field: nft.SrcAddr6,
					Prefix: netip.MustParsePrefix("fd00:10:244::/48")}, ret)}, rules...)...))
	check("excepted", false, false)
}

// A port that lies in the range stays, unless it is to be random.
func TestMasqueradeAtRandom(t *testing.T) {
	n := newNATNet(t)
	changed := func(random bool) (count int) {
		n.install(natChain(nft.HookPostrouting,
			rule(nft.MatchProto{Proto: unix.IPPROTO_UDP},
				nft.Masquerade{First: 16384, Last: 65535, FullyRandom: random})))
		for i := range uint16(8) {
			port := 30000 + i
			if random {
				port += 1000
			}
			if n.seenFrom(n.pod, testnet.UDP, natOutside[0], testnet.FromPort(port)).
				Port() != port {
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
	out := nft.MatchIface{Field: nft.OutIface, Name: n.away.Interface()}
	n.install(natChain(nft.HookPostrouting, rule(out, nft.SNAT{Addr: natNode2[0]}),
		rule(out, nft.SNAT{Addr: natNode2[1]})))
	for i, to := range natOutside {
		for _, proto := range withPorts {
			if seen := n.seenFrom(n.pod, proto, to); seen.Addr() != natNode2[i] {
				t.Errorf("%s to %s comes from %s, not %s", proto, to, seen, natNode2[i])
			}
		}
	}
}

// hostPorts are NAT maps and rules as host ports take them: by address, protocol and port, or for
// every address of the node.
func hostPorts(anyAddr bool) (objects []any, rules []nft.Rule) {
	protos := []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP}
	for i, field := range []nft.Field{nft.DstAddr4, nft.DstAddr6} {
		key := []nft.Field{field, nft.L4Proto, nft.DstPort}
		if anyAddr {
			key = key[1:]
		}
		m := &nft.Set{Name: "hostports" + string('4'+rune(2*i)), Key: key, Targets: field,
			Elements: map[nft.Element]nft.Verdict{}}
		for _, proto := range protos {
			e := nft.AddrProtoPortElement(natNode[i], proto, hostPort)
			if anyAddr {
				e = nft.ProtoPortElement(proto, hostPort)
			}
			m.Elements[e] = nft.NATTarget(netip.AddrPortFrom(natPods[i], servedPort))
		}
		objects, rules = append(objects, m),
			append(rules, rule(nft.MatchLocalDst{}, nft.DNAT{Fields: key, Map: m.Name}))
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
					if r := n.away.Connect(proto, to,
						testnet.WithTimeout(testnet.DefaultTimeout/3)); r.OK {
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
	n.install(append(maps, natChain(nft.HookPrerouting, rules...))...)
	reach("by address", natNode, true)
	reach("by address, another one", natNode2, false)
	maps, rules = hostPorts(true)
	n.install(append(maps, natChain(nft.HookPrerouting, rules...))...)
	reach("by port", natNode, true)
	reach("by port, another address", natNode2, true)

	// An element that goes takes the translation of new connections away.
	p := nft.Patch{Sets: map[string]*nft.SetPatch{
		"hostports4": {
			Remove: map[nft.Element]struct{}{nft.ProtoPortElement(unix.IPPROTO_TCP, hostPort): {}}},
	}}
	mustApply(t, n.table, p)
	mustMatch(t, n.table)
	if r := n.away.Connect(testnet.TCP, netip.AddrPortFrom(natNode[0], hostPort)); !errors.Is(r.Err,
		testnet.ErrReset) {
		t.Errorf("the element is gone, but: %s", r)
	}
	n.away.MustReach(t, testnet.UDP, netip.AddrPortFrom(natNode[0], hostPort))
	// One with another target leads there.
	p = nft.Patch{Sets: map[string]*nft.SetPatch{"hostports4": {Put: map[nft.Element]nft.Verdict{
		nft.ProtoPortElement(unix.IPPROTO_TCP,
			hostPort): nft.NATTarget(netip.AddrPortFrom(natOutside[0], servedPort)),
	}}}}
	mustApply(t, n.table, p)
	mustMatch(t, n.table)
	if r := n.pod.MustReach(t, testnet.TCP,
		netip.AddrPortFrom(natNode[0], hostPort)); !strings.HasPrefix(r.Reply, "away ") {
		t.Errorf("the element leads elsewhere, but: %s", r)
	}
}

// The node itself reaches a host port by its addresses and by 127.0.0.1, and a pod its own.
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
	// What was translated and would come from loopback, or from the pod itself, must come from the
	// node.
	back := natChain(nft.HookPostrouting,
		rule(nft.MatchDNATed{}, nft.MatchPrefix{Field: nft.SrcAddr4,
			Prefix: netip.MustParsePrefix("127.0.0.0/8")}, nft.Masquerade{}))
	n.install(append(maps, natChain(nft.HookPrerouting, rules...),
		natChain(nft.HookOutput, rules...), back)...)
	for _, a := range targets {
		for _, proto := range []testnet.Protocol{testnet.TCP, testnet.UDP} {
			self.MustReach(t, proto, netip.AddrPortFrom(a, hostPort))
		}
	}

	for _, a := range natNode {
		n.pod.MustNotReach(t, testnet.TCP, netip.AddrPortFrom(a, hostPort))
	}
	for i, a := range natPods {
		field := []nft.Field{nft.SrcAddr4, nft.SrcAddr6}[i]
		back.Rules = append(back.Rules,
			rule(nft.MatchDNATed{}, nft.MatchAddr{Field: field, Addr: a},
				nft.MatchAddr{Field: field + (nft.DstAddr4 - nft.SrcAddr4), Addr: a},
				nft.Masquerade{}))
	}
	n.install(append(maps, natChain(nft.HookPrerouting, rules...),
		natChain(nft.HookOutput, rules...), back)...)
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
	tracking := &nft.Chain{Name: "judge", Base: &nft.Base{Hook: nft.HookForward},
		Rules: []nft.Rule{rule(nft.MatchCT{State: nft.CTInvalid}, drop)}}
	toNode := &nft.Chain{Name: "send", Base: &nft.Base{Hook: nft.HookOutput},
		Rules: []nft.Rule{rule(nft.MatchCT{State: nft.CTInvalid}, drop)}}
	tracked := func(port uint16, from *testnet.Host) (found bool) {
		t.Helper()
		for i, to := range natOutside {
			n.seenFrom(from, testnet.UDP, to, testnet.FromPort(port))
			err := n.node.Do(func() error {
				flows, err := netlink.ConntrackTableList(netlink.ConntrackTable,
					netlink.InetFamily([]uint8{unix.AF_INET, unix.AF_INET6}[i]))
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
	raw := func(hook nft.Hook) *nft.Chain {
		return &nft.Chain{Name: "raw/" + hook.String(), Base: &nft.Base{Hook: hook, Priority: -300},
			Rules: []nft.Rule{
				rule(nft.MatchPort{Proto: unix.IPPROTO_UDP, First: servedPort, Last: servedPort},
					nft.NoTrack{}),
				rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr4}, Set: "servers4"}, nft.NoTrack{}),
				rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr6}, Set: "servers6"}, nft.NoTrack{}),
			}}
	}
	servers := func(name string, field nft.Field, a netip.Addr) *nft.Set {
		return &nft.Set{Name: name, Key: []nft.Field{field},
			Elements: map[nft.Element]nft.Verdict{nft.AddrElement(a): {}}}
	}
	n.install(tracking, toNode, raw(nft.HookPrerouting), raw(nft.HookOutput),
		servers("servers4", nft.SrcAddr4, natOutside[0]),
		servers("servers6", nft.SrcAddr6, natOutside[1]))
	if tracked(5003, n.pod) || tracked(5004, n.node.Host()) {
		t.Error("there is a conntrack entry")
	}
}
