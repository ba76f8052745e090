package table

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/stretch"
)

// A NAT map of more elements than fit into one message arrives whole, and so does a change of all
// its targets.
func TestBigNATMap(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	size := 6000
	if stretch.Factor() > 1 {
		size = 2000 // more than one message all the same
	}
	key := []nft.Field{nft.DstAddr6, nft.L4Proto, nft.DstPort}
	ports := func(shift uint16) map[nft.Element]nft.Verdict {
		elements := map[nft.Element]nft.Verdict{}
		for i := range uint16(size) {
			elements[nft.AddrProtoPortElement(natNode[1], 6, i+1)] = nft.NATTarget(
				netip.AddrPortFrom(natPods[1], i+1+shift))
		}
		return elements
	}
	r := nft.NewRuleset()
	r.AddSet(&nft.Set{Name: "ports", Key: key, Targets: nft.DstAddr6, Elements: ports(0)})
	r.AddChain(natChain(nft.HookPrerouting, rule(nft.DNAT{Fields: key, Map: "ports"})))
	mustSync(t, table, r)
	mustMatch(t, table)
	mustApply(t, table, nft.Patch{Sets: map[string]*nft.SetPatch{"ports": {Put: ports(7)}}})
	mustMatch(t, table)
	got := strings.Count(n.Nft("list", "map", "inet", nft.TableName, "ports"),
		" : fd00:10:244:1::2 . ")
	if got != size {
		t.Errorf("nft lists %d elements, not %d", got, size)
	}
}

// What can't be a translation is refused with the reason, before the kernel is asked.
func TestImpossibleTranslations(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	key := []nft.Field{nft.L4Proto, nft.DstPort}
	for _, c := range []struct {
		name    string
		rule    nft.Rule
		set     nft.Set
		element nft.Verdict
		want    string
	}{
		{name: "no map", rule: rule(nft.DNAT{Fields: key, Map: "none"}),
			want: "none is no NAT map"},
		{name: "a plain set", rule: rule(nft.DNAT{Fields: key, Map: "m"}), set: nft.Set{Key: key},
			want: "m is no NAT map"},
		{name: "no protocol", rule: rule(nft.DNAT{Fields: []nft.Field{nft.DstAddr4}, Map: "m"}),
			set:  nft.Set{Key: []nft.Field{nft.DstAddr4}, Targets: nft.DstAddr4},
			want: "has the protocol"},
		{name: "families",
			rule: rule(nft.DNAT{Fields: []nft.Field{nft.DstAddr6, nft.L4Proto}, Map: "m"}),
			set:  nft.Set{Key: []nft.Field{nft.DstAddr6, nft.L4Proto}, Targets: nft.DstAddr4},
			want: "can't be translated"},
		{name: "targets", set: nft.Set{Key: key, Targets: nft.DstPort},
			want: "th dport can't be translated to"},
		{name: "a guard", set: nft.Set{Key: key, Targets: nft.DstAddr4, Guard: true},
			want: "neither a verdict map nor a guard"},
		{name: "a verdict", set: nft.Set{Key: key, Targets: nft.DstAddr4},
			element: nft.Verdict{Kind: nft.Drop}, want: "can't lead to"},
		{name: "the other family", set: nft.Set{Key: key, Targets: nft.DstAddr4},
			element: nft.NATTarget(netip.MustParseAddrPort("[::1]:1")), want: "can't lead to"},
		{name: "no port", set: nft.Set{Key: key, Targets: nft.DstAddr4},
			element: nft.NATTarget(netip.MustParseAddrPort("10.0.0.1:0")), want: "can't lead to"},
		{name: "a target in a verdict map", set: nft.Set{Key: key, Verdicts: true},
			element: nft.NATTarget(netip.MustParseAddrPort("10.0.0.1:1")),
			want:    "can't be written"},
		{name: "a target as a verdict",
			rule: rule(nft.Do{Verdict: nft.NATTarget(netip.MustParseAddrPort("10.0.0.1:1"))}),
			want: "can't be written"},
		{name: "no source", rule: rule(nft.SNAT{}), want: "is no source"},
		{name: "ports of nothing", rule: rule(nft.Masquerade{First: 1, Last: 2}),
			want: "needs the match of a protocol"},
		{name: "ports of ICMP", rule: rule(nft.MatchProto{Proto: 1},
			nft.Masquerade{First: 1, Last: 2}), want: "needs the match of a protocol"},
		{name: "an empty range", rule: rule(nft.MatchProto{Proto: 17},
			nft.Masquerade{First: 2, Last: 1}), want: "is none to masquerade to"},
		{name: "half a range", rule: rule(nft.MatchProto{Proto: 17}, nft.Masquerade{Last: 1}),
			want: "is none to masquerade to"},
		{name: "a prefix of the other family",
			rule: rule(nft.MatchPrefix{Field: nft.SrcAddr4,
				Prefix: netip.MustParsePrefix("fd00::/8")}), want: "can't be compared"},
		{name: "no prefix", rule: rule(nft.MatchPrefix{Field: nft.SrcAddr4}),
			want: "can't be compared"},
	} {
		r := nft.NewRuleset()
		if c.rule.Statements != nil {
			r.AddChain(&nft.Chain{Name: "nat",
				Base:  &nft.Base{Type: nft.NATChain, Hook: nft.HookPostrouting},
				Rules: []nft.Rule{c.rule}})
		}
		if c.set.Key != nil {
			c.set.Name = "m"
			s := r.AddSet(&c.set)
			if c.element != (nft.Verdict{}) {
				s.Elements[nft.ProtoPortElement(6, 80)] = c.element
			}
		}
		err := table.Sync(context.Background(), r)
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, nft.ErrRefused) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}
