// Package nfttest has what the tests of nft, nft/wire and nft/table share: namespaces with the nft
// program, short words for rules, and a ruleset with every kind of statement and set.
package nfttest

import (
	"bytes"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/containernetworking/plugins/pkg/testutils"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/needroot"
	"github.com/sluice-net/sluice/test/stretch"
)

// A Namespace is a fresh network namespace with nothing but a loopback.
type Namespace struct {
	testing.TB
	NS ns.NetNS
}

// NewNamespace makes a Namespace that goes with the test.
func NewNamespace(t testing.TB) *Namespace {
	t.Helper()
	needroot.Skip(t)
	n, err := testutils.NewNS()
	if err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("closing the namespace: %v", err)
		}
		// A process that another test starts at this moment may hold the mount for as long as it
		// takes to start.
		Eventually(t, func() error { return testutils.UnmountNS(n) })
	})
	return &Namespace{TB: t, NS: n}
}

// Eventually tries f until it succeeds, for some seconds.
func Eventually(t testing.TB, f func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(stretch.By(10 * time.Second))
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

// Try runs the nft tool, with input on stdin.
func (n *Namespace) Try(input string, args ...string) (string, error) {
	n.Helper()
	var out bytes.Buffer
	err := n.NS.Do(func(ns.NetNS) error {
		cmd := exec.Command("nft", args...)
		cmd.Stdin = strings.NewReader(input)
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd.Run()
	})
	return out.String(), err
}

// Nft runs the nft program, which has to succeed.
func (n *Namespace) Nft(args ...string) string {
	n.Helper()
	out, err := n.Try("", args...)
	if err != nil {
		n.Fatalf("nft %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Load has the nft program run a script.
func (n *Namespace) Load(script string) {
	n.Helper()
	if out, err := n.Try(script, "-f", "-"); err != nil {
		n.Fatalf("nft -f: %v\n%s\n%s", err, out, script)
	}
}

// MustParse checks that nft takes its own listing back.
func (n *Namespace) MustParse(listing string) {
	n.Helper()
	if out, err := n.Try(listing, "-c", "-f", "-"); err != nil {
		n.Fatalf("nft doesn't parse its listing: %v\n%s\n%s", err, out, listing)
	}
}

var elementList = regexp.MustCompile(`elements = \{([^}]*)\}`)

// Listing is what nft lists, without running values, objects and elements in a fixed order: those
// of a hash table have none.
func (n *Namespace) Listing() string {
	n.Helper()
	out := n.Nft("-s", "list", "table", "inet", nft.TableName)
	out = elementList.ReplaceAllStringFunc(out, func(list string) string {
		var items []string
		for item := range strings.SplitSeq(elementList.FindStringSubmatch(list)[1], ",") {
			items = append(items, strings.TrimSpace(item))
		}
		slices.Sort(items)
		return "elements = { " + strings.Join(items, ", ") + " }"
	})
	body := strings.TrimSuffix(strings.TrimPrefix(out, "table inet sluice {\n"), "}\n")
	objects := strings.Split(strings.Trim(body, "\n"), "\n\n")
	slices.Sort(objects)
	return strings.Join(objects, "\n")
}

// Addr parses an address.
func Addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// Rule is a rule of statements, without a comment.
func Rule(s ...nft.Statement) nft.Rule { return nft.Rule{Statements: s} }

// Accept, Drop and Return are statements.
var (
	Accept = nft.Do{Verdict: nft.Verdict{Kind: nft.Accept}}
	Drop   = nft.Do{Verdict: nft.Verdict{Kind: nft.Drop}}
	Return = nft.Do{Verdict: nft.Verdict{Kind: nft.Return}}
)

// Jump is a statement that jumps to a chain.
func Jump(chain string) nft.Do { return nft.Do{Verdict: nft.JumpTo(chain)} }

// Everything is a ruleset with every kind of statement and set.
func Everything() *nft.Ruleset {
	r := nft.NewRuleset()
	set := func(name string, interval bool, key []nft.Field, elements ...nft.Element) {
		s := r.AddSet(&nft.Set{Name: name, Key: key, Interval: interval,
			Comment: "what " + name + " holds"})
		for _, e := range elements {
			s.Elements[e] = nft.Verdict{}
		}
	}
	set("set/hosts4", false, []nft.Field{nft.SrcAddr4}, nft.AddrElement(Addr("10.0.0.1")),
		nft.AddrElement(Addr("10.0.0.2")))
	set("set/hosts6", false, []nft.Field{nft.SrcAddr6}, nft.AddrElement(Addr("fd00::1")))
	set("set/blocks4", true, []nft.Field{nft.DstAddr4},
		nft.RangeElement(Addr("0.0.0.0"), Addr("0.255.255.255")),
		nft.RangeElement(Addr("10.0.0.0"), Addr("10.0.0.4")),
		nft.RangeElement(Addr("10.0.0.5"), Addr("10.0.0.5")),
		nft.RangeElement(Addr("192.168.0.7"), Addr("255.255.255.255")))
	set("set/blocks6", true, []nft.Field{nft.SrcAddr6},
		nft.RangeElement(Addr("::"), Addr("::1")),
		nft.RangeElement(Addr("fd00::"), Addr("fd00::ffff")),
		nft.RangeElement(Addr("ffff::"), Addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")))
	set("set/ports", true, []nft.Field{nft.DstPort, nft.L4Proto},
		nft.PortsElement(6, 80, 90), nft.PortsElement(17, 53, 53),
		nft.PortsElement(132, 0, 65535))
	set("set/named4", false, []nft.Field{nft.DstAddr4, nft.L4Proto, nft.DstPort},
		nft.AddrProtoPortElement(Addr("10.0.0.1"), 6, 80))
	set("set/named6", false, []nft.Field{nft.DstAddr6, nft.L4Proto, nft.DstPort},
		nft.AddrProtoPortElement(Addr("fd00::1"), 17, 53))
	set("set/empty4", true, []nft.Field{nft.SrcAddr4})
	set("set/networks4", true, []nft.Field{nft.SrcAddr4},
		nft.RangeElement(Addr("10.0.0.0"), Addr("10.255.255.255")))
	set("set/ends4", false, []nft.Field{nft.SrcAddr4, nft.InIface, nft.OriginalSrc4},
		nft.AddrIfacePairElement(Addr("10.0.0.1"), names.PodLink+"0123456789a", Addr("10.0.0.2")))
	set("set/ends6", false, []nft.Field{nft.SrcAddr6, nft.InIface, nft.ReplySrc6},
		nft.AddrIfacePairElement(Addr("fd00::1"), names.PodLink+"0123456789a", Addr("fd00::2")))
	set("set/pairs6", false, []nft.Field{nft.SrcAddr6, nft.OriginalSrc6},
		nft.AddrPairElement(Addr("fd00::1"), Addr("fd00::2")))

	maps := func(name string, key []nft.Field, elements map[nft.Element]nft.Verdict) {
		r.AddSet(&nft.Set{Name: name, Key: key, Verdicts: true, Elements: elements})
	}
	maps("map/veth4", []nft.Field{nft.SrcAddr4, nft.InIface}, map[nft.Element]nft.Verdict{
		nft.AddrIfaceElement(Addr("10.0.0.1"),
			names.PodLink+"0123456789a"): nft.JumpTo("pod/dev/web-0/egress"),
		nft.AddrIfaceElement(Addr("10.0.0.2"), names.PodLink+"2"): {Kind: nft.Accept},
		nft.AddrIfaceElement(Addr("10.0.0.3"), names.PodLink+"3"): {Kind: nft.Drop},
	})
	maps("map/veth6", []nft.Field{nft.SrcAddr6, nft.InIface}, map[nft.Element]nft.Verdict{
		nft.AddrIfaceElement(Addr("fd00::1"),
			names.PodLink+"0123456789a"): nft.JumpTo("pod/dev/web-0/egress"),
	})
	maps("map/addr4", []nft.Field{nft.DstAddr4},
		map[nft.Element]nft.Verdict{nft.AddrElement(Addr("10.0.0.9")): {Kind: nft.Return}})
	maps("map/addr6", []nft.Field{nft.DstAddr6}, nil)
	maps("map/out6", []nft.Field{nft.DstAddr6, nft.OutIface}, nil)

	nat := func(name string, targets nft.Field, key []nft.Field, elements map[nft.Element]string) {
		m := r.AddSet(&nft.Set{Name: name, Key: key, Targets: targets})
		for e, to := range elements {
			m.Elements[e] = nft.NATTarget(netip.MustParseAddrPort(to))
		}
	}
	nat("nat/host4", nft.DstAddr4, []nft.Field{nft.DstAddr4, nft.L4Proto, nft.DstPort},
		map[nft.Element]string{
			nft.AddrProtoPortElement(Addr("192.0.2.1"), 6, 80):      "10.0.0.1:8080",
			nft.AddrProtoPortElement(Addr("192.0.2.1"), 17, 53):     "10.0.0.2:53",
			nft.AddrProtoPortElement(Addr("192.0.2.1"), 132, 65535): "10.0.0.2:1",
		})
	nat("nat/host6", nft.DstAddr6, []nft.Field{nft.DstAddr6, nft.L4Proto, nft.DstPort},
		map[nft.Element]string{
			nft.AddrProtoPortElement(Addr("2001:db8::1"), 6, 80): "[fd00::1]:8080",
		})
	nat("nat/any4", nft.DstAddr4, []nft.Field{nft.L4Proto, nft.DstPort}, map[nft.Element]string{
		nft.ProtoPortElement(6, 80): "10.0.0.1:8080", nft.ProtoPortElement(17, 80): "10.0.0.1:8081",
	})
	nat("nat/any6", nft.DstAddr6, []nft.Field{nft.L4Proto, nft.DstPort},
		map[nft.Element]string{nft.ProtoPortElement(6, 80): "[fd00::1]:8080"})
	nat("nat/empty4", nft.DstAddr4, []nft.Field{nft.SrcAddr4, nft.L4Proto, nft.DstPort}, nil)

	r.AddChain(&nft.Chain{Name: "pod/dev/web-0/egress", Rules: []nft.Rule{
		Rule(Jump("policy/dev/allow-80/egress")),
		Rule(nft.Count{}, nft.Sample{Group: 7, Prefix: "dev/web-0 ", PerSecond: 10}),
		Rule(nft.Sample{Group: 8, PerSecond: 100, Burst: 20}),
		Rule(nft.ResetTCP{}),
		Rule(nft.MatchTCPNoSYN{}, nft.ResetTCP{}),
		Rule(Drop),
	}})
	r.AddChain(&nft.Chain{Name: "policy/dev/allow-80/egress", Rules: []nft.Rule{
		{
			Statements: []nft.Statement{nft.InSet{Fields: []nft.Field{nft.DstAddr4},
				Set: "set/blocks4"}, nft.MatchPort{Proto: 6, First: 80, Last: 80}, Accept},
			Comment: "dev/allow-80: rule 1 [egress]"},
		Rule(nft.InSet{Fields: []nft.Field{nft.DstAddr4}, Set: "set/blocks4"},
			nft.MatchPort{Proto: 6, First: 80, Last: 90}, Accept),
		Rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr4}, Set: "set/hosts4"},
			nft.InSet{Fields: []nft.Field{nft.DstPort, nft.L4Proto}, Set: "set/ports"}, Accept),
		Rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr6}, Set: "set/hosts6"},
			nft.MatchPort{Proto: 17, First: 53, Last: 53}, Accept),
		Rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr6}, Set: "set/blocks6"},
			nft.MatchPort{Proto: 132, First: 1, Last: 65535}, Accept),
		Rule(nft.InSet{Fields: []nft.Field{nft.DstPort, nft.L4Proto}, Set: "set/ports"}, Accept),
		Rule(nft.InSet{Fields: []nft.Field{nft.DstAddr4, nft.L4Proto, nft.DstPort},
			Set: "set/named4"}, Accept),
		Rule(nft.InSet{Fields: []nft.Field{nft.DstAddr6, nft.L4Proto, nft.DstPort},
			Set: "set/named6"}, Accept),
		Rule(nft.MatchProto{Proto: 6}, Accept),
		Rule(nft.MatchProto{Proto: 58}, Accept),
		Rule(nft.MatchProto{Proto: 99}, Return),
		Rule(nft.MatchAddr{Field: nft.SrcAddr4, Addr: Addr("10.0.0.1")},
			nft.MatchAddr{Field: nft.DstAddr4, Addr: Addr("10.0.0.2")}, Accept),
		Rule(nft.MatchAddr{Field: nft.SrcAddr6, Addr: Addr("fd00::1")},
			nft.MatchAddr{Field: nft.DstAddr6, Addr: Addr("fd00::2")}, Drop),
	}})
	r.AddChain(&nft.Chain{Name: "empty"})
	r.AddChain(&nft.Chain{Name: "egress/1", Base: &nft.Base{Hook: nft.HookForward, Priority: -2},
		Rules: []nft.Rule{
			Rule(nft.MatchND{}, Accept),
			Rule(nft.MatchCT{State: nft.CTEstablished}, Accept),
			Rule(nft.MatchCT{State: nft.CTEstablished | nft.CTRelated}, nft.MatchProto{Proto: 1},
				Accept),
			Rule(nft.MatchCT{State: nft.CTInvalid}, nft.Count{}, Drop),
			Rule(nft.MatchCTLabel{Bit: 127}, Return),
			Rule(nft.SetCTLabel{Bit: 127}),
			Rule(nft.MatchCTLabel{Bit: 63}, nft.MatchCTLabel{Bit: 0}, Drop),
			Rule(nft.MatchLocalSrc{}, Accept),
			Rule(nft.MatchLocalDst{}, Return),
			Rule(nft.Dispatch{Fields: []nft.Field{nft.SrcAddr4, nft.InIface}, Map: "map/veth4"}),
			Rule(nft.Dispatch{Fields: []nft.Field{nft.SrcAddr6, nft.InIface}, Map: "map/veth6"}),
			Rule(nft.Dispatch{Fields: []nft.Field{nft.DstAddr4}, Map: "map/addr4"}),
			Rule(nft.Dispatch{Fields: []nft.Field{nft.DstAddr6}, Map: "map/addr6"}),
			Rule(nft.Dispatch{Fields: []nft.Field{nft.DstAddr6, nft.OutIface}, Map: "map/out6"}),
			Rule(nft.MatchCT{State: nft.CTRelated},
				nft.InSet{Fields: []nft.Field{nft.SrcAddr4, nft.InIface, nft.OriginalSrc4},
					Set: "set/ends4"}, Accept),
			Rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr4, nft.InIface, nft.ReplySrc4},
				Set: "set/ends4"}, Accept),
			Rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr6, nft.InIface, nft.OriginalSrc6},
				Set: "set/ends6"}, Accept),
			Rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr6, nft.ReplySrc6}, Set: "set/pairs6"},
				Accept),
			Rule(nft.MatchIface{Field: nft.InIface, Name: names.PodLinks}, Drop),
			Rule(nft.MatchIface{Field: nft.OutIface, Name: "sluice.1"}, Return),
			Rule(nft.MatchIface{Field: nft.InIface, Name: names.PodLink + "0123456789a"},
				nft.MatchPort{Proto: 17, First: 8472, Last: 8472}, Drop),
		}})
	addr4, addr6, anyAddr := []nft.Field{nft.DstAddr4, nft.L4Proto, nft.DstPort},
		[]nft.Field{nft.DstAddr6, nft.L4Proto, nft.DstPort}, []nft.Field{nft.L4Proto, nft.DstPort}
	r.AddChain(&nft.Chain{Name: "prefixes", Rules: []nft.Rule{
		Rule(nft.MatchPrefix{Field: nft.SrcAddr4, Prefix: netip.MustParsePrefix("10.0.0.0/8")},
			nft.MatchPrefix{Field: nft.DstAddr4, Prefix: netip.MustParsePrefix("10.1.2.3/24")},
			Return),
		Rule(nft.MatchPrefix{Field: nft.DstAddr4, Prefix: netip.MustParsePrefix("10.0.0.0/13")},
			Return),
		Rule(nft.MatchPrefix{Field: nft.SrcAddr4, Prefix: netip.MustParsePrefix("0.0.0.0/0")},
			Return),
		Rule(nft.MatchPrefix{Field: nft.SrcAddr4, Prefix: netip.MustParsePrefix("10.0.0.1/32")},
			Return),
		Rule(nft.MatchPrefix{Field: nft.SrcAddr6, Prefix: netip.MustParsePrefix("fd00::/8")},
			nft.MatchPrefix{Field: nft.DstAddr6, Prefix: netip.MustParsePrefix("fd00::/48")},
			Return),
		Rule(nft.MatchPrefix{Field: nft.SrcAddr6, Prefix: netip.MustParsePrefix("fe80::/10")},
			Return),
		Rule(nft.MatchPrefix{Field: nft.DstAddr6, Prefix: netip.MustParsePrefix("::/0")}, Return),
		Rule(nft.MatchPrefix{Field: nft.DstAddr6, Prefix: netip.MustParsePrefix("fd00::1/128")},
			Return),
	}})
	for _, b := range []struct {
		name  string
		base  nft.Base
		rules []nft.Rule
	}{
		{"raw/2", nft.Base{Hook: nft.HookPrerouting, Priority: -300}, []nft.Rule{
			Rule(nft.MatchPort{Proto: 17, First: 8472, Last: 8472}, nft.NoTrack{}),
			Rule(nft.MatchIface{Field: nft.InIface, Name: names.PodLinks}, nft.MatchNoRouteBack{},
				nft.Count{}, Drop),
			Rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr4}, Set: "set/networks4"},
				nft.MatchNoRouteBack{}, Drop),
			Rule(nft.MatchRouteBack{}, Accept),
			Rule(nft.MatchIface{Field: nft.InIface, Name: names.PodLinks, Others: true}, Accept),
		}},
		{"output-raw/1", nft.Base{Hook: nft.HookOutput, Priority: -300},
			[]nft.Rule{Rule(nft.MatchProto{Proto: 17}, nft.NoTrack{})}},
		{"dstnat/1", nft.Base{Type: nft.NATChain, Hook: nft.HookPrerouting, Priority: -100},
			[]nft.Rule{
				Rule(nft.DNAT{Fields: addr4, Map: "nat/host4"}),
				Rule(nft.DNAT{Fields: addr6, Map: "nat/host6"}),
				Rule(nft.MatchLocalDst{}, nft.DNAT{Fields: anyAddr, Map: "nat/any4"}),
				Rule(nft.MatchLocalDst{}, nft.DNAT{Fields: anyAddr, Map: "nat/any6"}),
				Rule(nft.MatchIface{Field: nft.InIface, Name: names.PodLinks},
					nft.DNAT{Fields: []nft.Field{nft.SrcAddr4, nft.L4Proto, nft.DstPort},
						Map: "nat/empty4"}),
			}},
		{"output-nat/1", nft.Base{Type: nft.NATChain, Hook: nft.HookOutput, Priority: -100},
			[]nft.Rule{
				Rule(nft.DNAT{Fields: addr4, Map: "nat/host4"}),
				Rule(nft.MatchLocalDst{}, nft.DNAT{Fields: anyAddr, Map: "nat/any6"}),
			}},
		{"input-nat/1", nft.Base{Type: nft.NATChain, Hook: nft.HookInput, Priority: 100},
			[]nft.Rule{Rule(nft.SNAT{Addr: Addr("10.0.0.1")})}},
		{"srcnat/1", nft.Base{Type: nft.NATChain, Hook: nft.HookPostrouting, Priority: 100},
			[]nft.Rule{
				Rule(nft.MatchDNATed{}, nft.Masquerade{}),
				Rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr4}, Set: "set/networks4"}, Return),
				Rule(nft.MatchProto{Proto: 17},
					nft.Masquerade{First: 16384, Last: 65535, FullyRandom: true}),
				Rule(nft.MatchProto{Proto: 6}, nft.Masquerade{First: 16384, Last: 65535}),
				Rule(nft.MatchProto{Proto: 132},
					nft.Masquerade{First: 7, Last: 7, FullyRandom: true}),
				Rule(nft.MatchPort{Proto: 17, First: 53, Last: 53},
					nft.Masquerade{First: 7, Last: 7}),
				Rule(nft.MatchIface{Field: nft.OutIface, Name: "sluice.1"},
					nft.SNAT{Addr: Addr("10.0.0.1")}),
				Rule(nft.MatchIface{Field: nft.OutIface, Name: "sluice.1"},
					nft.SNAT{Addr: Addr("fd00::1")}),
				Rule(nft.Masquerade{FullyRandom: true}),
			}},
		{"srcnat/2", nft.Base{Type: nft.NATChain, Hook: nft.HookPostrouting, Priority: 101},
			[]nft.Rule{Rule(nft.Count{})}},
	} {
		r.AddChain(&nft.Chain{Name: b.name, Base: &b.base, Rules: b.rules})
	}
	for _, b := range []struct {
		name string
		base nft.Base
	}{
		{"ingress/1", nft.Base{Hook: nft.HookForward, Priority: -1}},
		{"input/1", nft.Base{Hook: nft.HookInput, Priority: -1}},
		{"raw/1", nft.Base{Hook: nft.HookPrerouting, Priority: -300}},
		{"output/1", nft.Base{Hook: nft.HookOutput, Priority: 0}},
		{"post/1", nft.Base{Hook: nft.HookPostrouting, Priority: 5}},
	} {
		r.AddChain(&nft.Chain{Name: b.name, Base: &b.base, Rules: []nft.Rule{Rule(nft.Count{})}})
	}
	return r
}
