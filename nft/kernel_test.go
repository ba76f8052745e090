package nft

import (
	"bytes"
	"context"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/containernetworking/plugins/pkg/testutils"
)

// A namespace is a fresh network namespace with nothing but a loopback.
type namespace struct {
	testing.TB
	ns ns.NetNS
}

func newNamespace(t testing.TB) *namespace {
	t.Helper()
	n, err := testutils.NewNS()
	if err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("closing the namespace: %v", err)
		}
		// A process that another test starts at this moment may hold the
		// mount for as long as it takes to start.
		eventually(t, func() error { return testutils.UnmountNS(n) })
	})
	return &namespace{TB: t, ns: n}
}

// eventually tries f until it succeeds, for some seconds.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Errorf("it never succeeded: %v", err)
			return
		}
	}
}

func (n *namespace) open(opts Options) *Table {
	n.Helper()
	opts.NetNS = int(n.ns.Fd())
	table, err := Open(opts)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() {
		if err := table.Close(); err != nil {
			n.Error(err)
		}
	})
	return table
}

// try runs the nft tool, with input on stdin.
func (n *namespace) try(input string, args ...string) (string, error) {
	n.Helper()
	var out bytes.Buffer
	err := n.ns.Do(func(ns.NetNS) error {
		cmd := exec.Command("nft", args...)
		cmd.Stdin = strings.NewReader(input)
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd.Run()
	})
	return out.String(), err
}

func (n *namespace) nft(args ...string) string {
	n.Helper()
	out, err := n.try("", args...)
	if err != nil {
		n.Fatalf("nft %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (n *namespace) load(script string) {
	n.Helper()
	if out, err := n.try(script, "-f", "-"); err != nil {
		n.Fatalf("nft -f: %v\n%s\n%s", err, out, script)
	}
}

// mustParse checks that nft takes its own listing back.
func (n *namespace) mustParse(listing string) {
	n.Helper()
	if out, err := n.try(listing, "-c", "-f", "-"); err != nil {
		n.Fatalf("nft doesn't parse its listing: %v\n%s\n%s", err, out, listing)
	}
}

func mustSync(t testing.TB, table *Table, want *Ruleset) {
	t.Helper()
	if err := table.Sync(context.Background(), want); err != nil {
		t.Fatalf("Sync: %v", err)
	}
}

func mustApply(t testing.TB, table *Table, p Patch) {
	t.Helper()
	if err := table.Apply(context.Background(), p); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func mustMatch(t testing.TB, table *Table) {
	t.Helper()
	list, err := table.Check(context.Background())
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	if len(list) > 0 {
		t.Fatalf("the kernel's table differs:\n%s", strings.Join(list, "\n"))
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func rule(s ...Statement) Rule { return Rule{Statements: s} }

var (
	accept = Do{Verdict{Kind: Accept}}
	drop   = Do{Verdict{Kind: Drop}}
	ret    = Do{Verdict{Kind: Return}}
)

func jump(chain string) Do { return Do{JumpTo(chain)} }

// everything is a ruleset with every kind of statement and set.
func everything() *Ruleset {
	r := NewRuleset()
	set := func(name string, interval bool, key []Field, elements ...Element) {
		s := r.AddSet(&Set{Name: name, Key: key, Interval: interval, Comment: "what " + name + " holds"})
		for _, e := range elements {
			s.Elements[e] = Verdict{}
		}
	}
	set("set/hosts4", false, []Field{SrcAddr4}, AddrElement(addr("10.0.0.1")), AddrElement(addr("10.0.0.2")))
	set("set/hosts6", false, []Field{SrcAddr6}, AddrElement(addr("fd00::1")))
	set("set/blocks4", true, []Field{DstAddr4},
		RangeElement(addr("0.0.0.0"), addr("0.255.255.255")),
		RangeElement(addr("10.0.0.0"), addr("10.0.0.4")),
		RangeElement(addr("10.0.0.5"), addr("10.0.0.5")),
		RangeElement(addr("192.168.0.7"), addr("255.255.255.255")))
	set("set/blocks6", true, []Field{SrcAddr6},
		RangeElement(addr("::"), addr("::1")),
		RangeElement(addr("fd00::"), addr("fd00::ffff")),
		RangeElement(addr("ffff::"), addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")))
	set("set/ports", true, []Field{L4Proto, DstPort},
		ProtoPortsElement(6, 80, 90), ProtoPortsElement(17, 53, 53), ProtoPortsElement(132, 0, 65535))
	set("set/named4", false, []Field{DstAddr4, L4Proto, DstPort}, AddrProtoPortElement(addr("10.0.0.1"), 6, 80))
	set("set/named6", false, []Field{DstAddr6, L4Proto, DstPort}, AddrProtoPortElement(addr("fd00::1"), 17, 53))
	set("set/empty4", true, []Field{SrcAddr4})
	set("set/networks4", true, []Field{SrcAddr4}, RangeElement(addr("10.0.0.0"), addr("10.255.255.255")))
	set("set/ends4", false, []Field{SrcAddr4, InIface, OriginalSrc4}, AddrIfacePairElement(addr("10.0.0.1"), "slup0123456789a", addr("10.0.0.2")))
	set("set/ends6", false, []Field{SrcAddr6, InIface, ReplySrc6}, AddrIfacePairElement(addr("fd00::1"), "slup0123456789a", addr("fd00::2")))
	set("set/pairs6", false, []Field{SrcAddr6, OriginalSrc6}, AddrPairElement(addr("fd00::1"), addr("fd00::2")))

	maps := func(name string, key []Field, elements map[Element]Verdict) {
		r.AddSet(&Set{Name: name, Key: key, Verdicts: true, Elements: elements})
	}
	maps("map/veth4", []Field{SrcAddr4, InIface}, map[Element]Verdict{
		AddrIfaceElement(addr("10.0.0.1"), "slup0123456789a"): JumpTo("pod/dev/web-0/egress"),
		AddrIfaceElement(addr("10.0.0.2"), "slup2"):           {Kind: Accept},
		AddrIfaceElement(addr("10.0.0.3"), "slup3"):           {Kind: Drop},
	})
	maps("map/veth6", []Field{SrcAddr6, InIface}, map[Element]Verdict{
		AddrIfaceElement(addr("fd00::1"), "slup0123456789a"): JumpTo("pod/dev/web-0/egress"),
	})
	maps("map/addr4", []Field{DstAddr4}, map[Element]Verdict{AddrElement(addr("10.0.0.9")): {Kind: Return}})
	maps("map/addr6", []Field{DstAddr6}, nil)
	maps("map/out6", []Field{DstAddr6, OutIface}, nil)

	nat := func(name string, targets Field, key []Field, elements map[Element]string) {
		m := r.AddSet(&Set{Name: name, Key: key, Targets: targets})
		for e, to := range elements {
			m.Elements[e] = NATTarget(netip.MustParseAddrPort(to))
		}
	}
	nat("nat/host4", DstAddr4, []Field{DstAddr4, L4Proto, DstPort}, map[Element]string{
		AddrProtoPortElement(addr("192.0.2.1"), 6, 80):      "10.0.0.1:8080",
		AddrProtoPortElement(addr("192.0.2.1"), 17, 53):     "10.0.0.2:53",
		AddrProtoPortElement(addr("192.0.2.1"), 132, 65535): "10.0.0.2:1",
	})
	nat("nat/host6", DstAddr6, []Field{DstAddr6, L4Proto, DstPort}, map[Element]string{
		AddrProtoPortElement(addr("2001:db8::1"), 6, 80): "[fd00::1]:8080",
	})
	nat("nat/any4", DstAddr4, []Field{L4Proto, DstPort}, map[Element]string{
		ProtoPortElement(6, 80): "10.0.0.1:8080", ProtoPortElement(17, 80): "10.0.0.1:8081",
	})
	nat("nat/any6", DstAddr6, []Field{L4Proto, DstPort}, map[Element]string{ProtoPortElement(6, 80): "[fd00::1]:8080"})
	nat("nat/empty4", DstAddr4, []Field{SrcAddr4, L4Proto, DstPort}, nil)

	r.AddChain(&Chain{Name: "pod/dev/web-0/egress", Rules: []Rule{
		rule(jump("policy/dev/allow-80/egress")),
		rule(Count{}, Sample{Group: 7, Prefix: "dev/web-0 ", PerSecond: 10}),
		rule(Sample{Group: 8, PerSecond: 100, Burst: 20}),
		rule(ResetTCP{}),
		rule(MatchTCPNoSYN{}, ResetTCP{}),
		rule(drop),
	}})
	r.AddChain(&Chain{Name: "policy/dev/allow-80/egress", Rules: []Rule{
		{Statements: []Statement{InSet{[]Field{DstAddr4}, "set/blocks4"}, MatchPort{6, 80, 80}, accept}, Comment: "dev/allow-80: rule 1 [egress]"},
		rule(InSet{[]Field{DstAddr4}, "set/blocks4"}, MatchPort{6, 80, 90}, accept),
		rule(InSet{[]Field{SrcAddr4}, "set/hosts4"}, InSet{[]Field{L4Proto, DstPort}, "set/ports"}, accept),
		rule(InSet{[]Field{SrcAddr6}, "set/hosts6"}, MatchPort{17, 53, 53}, accept),
		rule(InSet{[]Field{SrcAddr6}, "set/blocks6"}, MatchPort{132, 1, 65535}, accept),
		rule(InSet{[]Field{L4Proto, DstPort}, "set/ports"}, accept),
		rule(InSet{[]Field{DstAddr4, L4Proto, DstPort}, "set/named4"}, accept),
		rule(InSet{[]Field{DstAddr6, L4Proto, DstPort}, "set/named6"}, accept),
		rule(MatchProto{6}, accept),
		rule(MatchProto{58}, accept),
		rule(MatchProto{99}, ret),
		rule(MatchAddr{SrcAddr4, addr("10.0.0.1")}, MatchAddr{DstAddr4, addr("10.0.0.2")}, accept),
		rule(MatchAddr{SrcAddr6, addr("fd00::1")}, MatchAddr{DstAddr6, addr("fd00::2")}, drop),
	}})
	r.AddChain(&Chain{Name: "empty"})
	r.AddChain(&Chain{Name: "egress/1", Base: &Base{Hook: HookForward, Priority: -2}, Rules: []Rule{
		rule(MatchND{}, accept),
		rule(MatchCT{CTEstablished}, accept),
		rule(MatchCT{CTEstablished | CTRelated}, MatchProto{1}, accept),
		rule(MatchCT{CTInvalid}, Count{}, drop),
		rule(MatchCTLabel{127}, ret),
		rule(SetCTLabel{127}),
		rule(MatchCTLabel{63}, MatchCTLabel{0}, drop),
		rule(MatchLocalSrc{}, accept),
		rule(MatchLocalDst{}, ret),
		rule(Dispatch{[]Field{SrcAddr4, InIface}, "map/veth4"}),
		rule(Dispatch{[]Field{SrcAddr6, InIface}, "map/veth6"}),
		rule(Dispatch{[]Field{DstAddr4}, "map/addr4"}),
		rule(Dispatch{[]Field{DstAddr6}, "map/addr6"}),
		rule(Dispatch{[]Field{DstAddr6, OutIface}, "map/out6"}),
		rule(MatchCT{CTRelated}, InSet{[]Field{SrcAddr4, InIface, OriginalSrc4}, "set/ends4"}, accept),
		rule(InSet{[]Field{SrcAddr4, InIface, ReplySrc4}, "set/ends4"}, accept),
		rule(InSet{[]Field{SrcAddr6, InIface, OriginalSrc6}, "set/ends6"}, accept),
		rule(InSet{[]Field{SrcAddr6, ReplySrc6}, "set/pairs6"}, accept),
		rule(MatchIface{InIface, "slup*"}, drop),
		rule(MatchIface{OutIface, "sluice.1"}, ret),
		rule(MatchIface{InIface, "slup0123456789a"}, MatchPort{17, 8472, 8472}, drop),
	}})
	addr4, addr6, anyAddr := []Field{DstAddr4, L4Proto, DstPort}, []Field{DstAddr6, L4Proto, DstPort}, []Field{L4Proto, DstPort}
	r.AddChain(&Chain{Name: "prefixes", Rules: []Rule{
		rule(MatchPrefix{SrcAddr4, netip.MustParsePrefix("10.0.0.0/8")}, MatchPrefix{DstAddr4, netip.MustParsePrefix("10.1.2.3/24")}, ret),
		rule(MatchPrefix{DstAddr4, netip.MustParsePrefix("10.0.0.0/13")}, ret),
		rule(MatchPrefix{SrcAddr4, netip.MustParsePrefix("0.0.0.0/0")}, ret),
		rule(MatchPrefix{SrcAddr4, netip.MustParsePrefix("10.0.0.1/32")}, ret),
		rule(MatchPrefix{SrcAddr6, netip.MustParsePrefix("fd00::/8")}, MatchPrefix{DstAddr6, netip.MustParsePrefix("fd00::/48")}, ret),
		rule(MatchPrefix{SrcAddr6, netip.MustParsePrefix("fe80::/10")}, ret),
		rule(MatchPrefix{DstAddr6, netip.MustParsePrefix("::/0")}, ret),
		rule(MatchPrefix{DstAddr6, netip.MustParsePrefix("fd00::1/128")}, ret),
	}})
	for _, b := range []struct {
		name  string
		base  Base
		rules []Rule
	}{
		{"raw/2", Base{Hook: HookPrerouting, Priority: -300}, []Rule{
			rule(MatchPort{17, 8472, 8472}, NoTrack{}),
			rule(MatchIface{InIface, "slup*"}, MatchNoRouteBack{}, Count{}, drop),
			rule(InSet{[]Field{SrcAddr4}, "set/networks4"}, MatchNoRouteBack{}, drop),
		}},
		{"output-raw/1", Base{Hook: HookOutput, Priority: -300}, []Rule{rule(MatchProto{17}, NoTrack{})}},
		{"dstnat/1", Base{Type: NATChain, Hook: HookPrerouting, Priority: -100}, []Rule{
			rule(DNAT{addr4, "nat/host4"}),
			rule(DNAT{addr6, "nat/host6"}),
			rule(MatchLocalDst{}, DNAT{anyAddr, "nat/any4"}),
			rule(MatchLocalDst{}, DNAT{anyAddr, "nat/any6"}),
			rule(MatchIface{InIface, "slup*"}, DNAT{[]Field{SrcAddr4, L4Proto, DstPort}, "nat/empty4"}),
		}},
		{"output-nat/1", Base{Type: NATChain, Hook: HookOutput, Priority: -100}, []Rule{
			rule(DNAT{addr4, "nat/host4"}), rule(MatchLocalDst{}, DNAT{anyAddr, "nat/any6"}),
		}},
		{"input-nat/1", Base{Type: NATChain, Hook: HookInput, Priority: 100}, []Rule{rule(SNAT{addr("10.0.0.1")})}},
		{"srcnat/1", Base{Type: NATChain, Hook: HookPostrouting, Priority: 100}, []Rule{
			rule(MatchDNATed{}, Masquerade{}),
			rule(InSet{[]Field{SrcAddr4}, "set/networks4"}, ret),
			rule(MatchProto{17}, Masquerade{First: 16384, Last: 65535, FullyRandom: true}),
			rule(MatchProto{6}, Masquerade{First: 16384, Last: 65535}),
			rule(MatchProto{132}, Masquerade{First: 7, Last: 7, FullyRandom: true}),
			rule(MatchPort{17, 53, 53}, Masquerade{First: 7, Last: 7}),
			rule(MatchIface{OutIface, "sluice.1"}, SNAT{addr("10.0.0.1")}),
			rule(MatchIface{OutIface, "sluice.1"}, SNAT{addr("fd00::1")}),
			rule(Masquerade{FullyRandom: true}),
		}},
		{"srcnat/2", Base{Type: NATChain, Hook: HookPostrouting, Priority: 101}, []Rule{rule(Count{})}},
	} {
		r.AddChain(&Chain{Name: b.name, Base: &b.base, Rules: b.rules})
	}
	for _, b := range []struct {
		name string
		base Base
	}{
		{"ingress/1", Base{Hook: HookForward, Priority: -1}},
		{"input/1", Base{Hook: HookInput, Priority: -1}},
		{"raw/1", Base{Hook: HookPrerouting, Priority: -300}},
		{"output/1", Base{Hook: HookOutput, Priority: 0}},
		{"post/1", Base{Hook: HookPostrouting, Priority: 5}},
	} {
		r.AddChain(&Chain{Name: b.name, Base: &b.base, Rules: []Rule{rule(Count{})}})
	}
	return r
}
