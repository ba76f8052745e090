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
		rule(MatchLocalSrc{}, accept),
		rule(MatchLocalDst{}, ret),
		rule(Dispatch{[]Field{SrcAddr4, InIface}, "map/veth4"}),
		rule(Dispatch{[]Field{SrcAddr6, InIface}, "map/veth6"}),
		rule(Dispatch{[]Field{DstAddr4}, "map/addr4"}),
		rule(Dispatch{[]Field{DstAddr6}, "map/addr6"}),
		rule(Dispatch{[]Field{DstAddr6, OutIface}, "map/out6"}),
		rule(MatchIface{InIface, "slup*"}, drop),
		rule(MatchIface{OutIface, "sluice.1"}, ret),
		rule(MatchIface{InIface, "slup0123456789a"}, MatchPort{17, 8472, 8472}, drop),
	}})
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
