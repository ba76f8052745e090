package nft

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// A NAT map of more elements than fit into one message arrives whole, and so
// does a change of all its targets.
func TestBigNATMap(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	const size = 6000
	key := []Field{DstAddr6, L4Proto, DstPort}
	ports := func(shift uint16) map[Element]Verdict {
		elements := map[Element]Verdict{}
		for i := range uint16(size) {
			elements[AddrProtoPortElement(natNode[1], 6, i+1)] = NATTarget(netip.AddrPortFrom(natPods[1], i+1+shift))
		}
		return elements
	}
	r := NewRuleset()
	r.AddSet(&Set{Name: "ports", Key: key, Targets: DstAddr6, Elements: ports(0)})
	r.AddChain(natChain(HookPrerouting, rule(DNAT{key, "ports"})))
	mustSync(t, table, r)
	mustMatch(t, table)
	mustApply(t, table, Patch{Sets: map[string]*SetPatch{"ports": {Put: ports(7)}}})
	mustMatch(t, table)
	if got := strings.Count(n.nft("list", "map", "inet", TableName, "ports"), " : fd00:10:244:1::2 . "); got != size {
		t.Errorf("nft lists %d elements, not %d", got, size)
	}
}

// What can't be a translation is refused with the reason, before the kernel
// is asked.
func TestImpossibleTranslations(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	key := []Field{L4Proto, DstPort}
	for _, c := range []struct {
		name    string
		rule    Rule
		set     Set
		element Verdict
		want    string
	}{
		{name: "no map", rule: rule(DNAT{key, "none"}), want: "none is no NAT map"},
		{name: "a plain set", rule: rule(DNAT{key, "m"}), set: Set{Key: key}, want: "m is no NAT map"},
		{name: "no protocol", rule: rule(DNAT{[]Field{DstAddr4}, "m"}), set: Set{Key: []Field{DstAddr4}, Targets: DstAddr4}, want: "has the protocol"},
		{name: "families", rule: rule(DNAT{[]Field{DstAddr6, L4Proto}, "m"}), set: Set{Key: []Field{DstAddr6, L4Proto}, Targets: DstAddr4}, want: "can't be translated"},
		{name: "targets", set: Set{Key: key, Targets: DstPort}, want: "th dport can't be translated to"},
		{name: "a guard", set: Set{Key: key, Targets: DstAddr4, Guard: true}, want: "neither a verdict map nor a guard"},
		{name: "a verdict", set: Set{Key: key, Targets: DstAddr4}, element: Verdict{Kind: Drop}, want: "can't lead to"},
		{name: "the other family", set: Set{Key: key, Targets: DstAddr4}, element: NATTarget(netip.MustParseAddrPort("[::1]:1")), want: "can't lead to"},
		{name: "no port", set: Set{Key: key, Targets: DstAddr4}, element: NATTarget(netip.MustParseAddrPort("10.0.0.1:0")), want: "can't lead to"},
		{name: "a target in a verdict map", set: Set{Key: key, Verdicts: true}, element: NATTarget(netip.MustParseAddrPort("10.0.0.1:1")), want: "can't be written"},
		{name: "a target as a verdict", rule: rule(Do{NATTarget(netip.MustParseAddrPort("10.0.0.1:1"))}), want: "can't be written"},
		{name: "no source", rule: rule(SNAT{}), want: "is no source"},
		{name: "ports of nothing", rule: rule(Masquerade{First: 1, Last: 2}), want: "needs the match of a protocol"},
		{name: "ports of ICMP", rule: rule(MatchProto{1}, Masquerade{First: 1, Last: 2}), want: "needs the match of a protocol"},
		{name: "an empty range", rule: rule(MatchProto{17}, Masquerade{First: 2, Last: 1}), want: "is none to masquerade to"},
		{name: "half a range", rule: rule(MatchProto{17}, Masquerade{Last: 1}), want: "is none to masquerade to"},
		{name: "a prefix of the other family", rule: rule(MatchPrefix{SrcAddr4, netip.MustParsePrefix("fd00::/8")}), want: "can't be compared"},
		{name: "no prefix", rule: rule(MatchPrefix{Field: SrcAddr4}), want: "can't be compared"},
	} {
		r := NewRuleset()
		if c.rule.Statements != nil {
			r.AddChain(&Chain{Name: "nat", Base: &Base{Type: NATChain, Hook: HookPostrouting}, Rules: []Rule{c.rule}})
		}
		if c.set.Key != nil {
			c.set.Name = "m"
			s := r.AddSet(&c.set)
			if c.element != (Verdict{}) {
				s.Elements[ProtoPortElement(6, 80)] = c.element
			}
		}
		err := table.Sync(context.Background(), r)
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}
