package nft

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var hostPortKey = []Field{DstAddr4, L4Proto, DstPort}

// smallTable is a table with two pods: one isolated, with a host port, and one open.
func smallTable() *Ruleset {
	r := NewRuleset()
	src := []Field{SrcAddr4}
	hosts := r.AddSet(&Set{Name: "hosts", Key: []Field{DstAddr4}})
	hosts.Elements[AddrElement(addr("10.0.0.1"))] = Verdict{}
	blocks := r.AddSet(&Set{Name: "blocks", Key: []Field{DstAddr4}, Interval: true})
	blocks.Elements[RangeElement(addr("10.0.0.0"), addr("10.0.0.9"))] = Verdict{}
	guard := r.AddSet(&Set{Name: "guard", Key: []Field{DstAddr4}, Guard: true})
	guard.Elements[AddrElement(addr("10.0.0.1"))] = Verdict{}
	pods := r.AddSet(&Set{Name: "pods", Key: src, Verdicts: true})
	pods.Elements[AddrElement(addr("10.0.0.1"))] = JumpTo("pod/a")
	pods.Elements[AddrElement(addr("10.0.0.2"))] = Verdict{Kind: Accept}
	r.AddChain(&Chain{Name: "policy/x",
		Rules: []Rule{rule(InSet{[]Field{DstAddr4}, "hosts"}, accept)}})
	r.AddChain(&Chain{Name: "policy/y",
		Rules: []Rule{rule(InSet{[]Field{DstAddr4}, "blocks"}, accept)}})
	r.AddChain(&Chain{Name: "pod/a", Rules: []Rule{rule(jump("policy/x")), rule(drop)}})
	r.AddChain(&Chain{Name: "egress/1", Base: &Base{Hook: HookForward, Priority: -2}, Rules: []Rule{
		rule(InSet{[]Field{DstAddr4}, "guard"}, drop), rule(Dispatch{src, "pods"}), rule(drop),
	}})
	ports := r.AddSet(&Set{Name: "ports", Key: hostPortKey, Targets: DstAddr4})
	ports.Elements[AddrProtoPortElement(addr("192.0.2.1"), 6, 80)] = NATTarget(
		netip.MustParseAddrPort("10.0.0.1:8080"))
	r.AddChain(&Chain{Name: "dstnat/1",
		Base: &Base{Type: NATChain, Hook: HookPrerouting, Priority: -100}, Rules: []Rule{
			rule(MatchLocalDst{}, DNAT{hostPortKey, "ports"}),
		}})
	return r
}

func TestPlan(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(r *Ruleset)
		want   string
	}{
		{"nothing", func(*Ruleset) {}, ""},
		{
			"a remote pod comes",
			func(r *Ruleset) {
				r.Sets["hosts"].Elements[AddrElement(addr("10.0.0.7"))] = Verdict{}
			}, `
finish:
	add element hosts { 10.0.0.7 }`,
		},
		{
			"a remote pod goes",
			func(r *Ruleset) { clear(r.Sets["hosts"].Elements) }, `
switch:
	delete element hosts { 10.0.0.1 }`,
		},
		{
			"a guard's members come and go the other way round",
			func(r *Ruleset) {
				clear(r.Sets["guard"].Elements)
				r.Sets["guard"].Elements[AddrElement(addr("10.0.0.7"))] = Verdict{}
			}, `
prepare:
	add element guard { 10.0.0.7 }
finish:
	delete element guard { 10.0.0.1 }`,
		},
		{
			"a range is written otherwise",
			func(r *Ruleset) {
				clear(r.Sets["blocks"].Elements)
				r.Sets["blocks"].Elements[RangeElement(addr("10.0.0.0"),
					addr("10.0.0.3"))] = Verdict{}
				r.Sets["blocks"].Elements[RangeElement(addr("10.0.0.5"),
					addr("10.0.0.20"))] = Verdict{}
			}, `
switch:
	delete element blocks { 10.0.0.0-10.0.0.9 }
	add element blocks { 10.0.0.0-10.0.0.3, 10.0.0.5-10.0.0.9 }
finish (after a wait):
	delete element blocks { 10.0.0.5-10.0.0.9 }
	add element blocks { 10.0.0.5-10.0.0.20 }`,
		},
		{
			"a pod comes: nothing waits",
			func(r *Ruleset) {
				r.AddChain(&Chain{Name: "pod/b", Rules: []Rule{rule(jump("policy/x")), rule(drop)}})
				r.Sets["pods"].Elements[AddrElement(addr("10.0.0.3"))] = JumpTo("pod/b")
				r.Sets["hosts"].Elements[AddrElement(addr("10.0.0.3"))] = Verdict{}
			}, `
prepare:
	add chain pod/b
	add rule pod/b jump policy/x
	add rule pod/b drop
switch:
	add element pods { 10.0.0.3 : jump pod/b }
finish:
	add element hosts { 10.0.0.3 }`,
		},
		{
			"a pod goes",
			func(r *Ruleset) {
				delete(r.Sets["pods"].Elements, AddrElement(addr("10.0.0.1")))
				delete(r.Chains, "pod/a")
			}, `
switch:
	delete element pods { 10.0.0.1 }
finish (after a wait):
	flush chain pod/a
	delete chain pod/a`,
		},
		{
			"a policy is edited, with a new set",
			func(r *Ruleset) {
				r.AddSet(&Set{Name: "new", Key: []Field{DstAddr4}}).
					Elements[AddrElement(addr("10.0.0.9"))] = Verdict{}
				r.AddChain(&Chain{Name: "policy/x",
					Rules: []Rule{rule(InSet{[]Field{DstAddr4}, "new"}, accept)}})
				delete(r.Sets, "hosts")
			}, `
prepare:
	add set new { type ipv4_addr; }
	add element new { 10.0.0.9 }
switch:
	flush chain policy/x
	add rule policy/x ip daddr @new accept
finish (after a wait):
	delete set hosts`,
		},
		{
			"a new key before a chain that is rewritten is fenced: it stays away",
			func(r *Ruleset) {
				r.AddChain(&Chain{Name: "policy/x", Rules: []Rule{rule(drop)}})
				r.Sets["pods"].Elements[AddrElement(addr("10.0.0.3"))] = JumpTo("pod/a")
			}, `
switch:
	flush chain policy/x
	add rule policy/x drop
finish (after a wait):
	add element pods { 10.0.0.3 : jump pod/a }`,
		},
		{
			"an existing one drops meanwhile",
			func(r *Ruleset) {
				r.AddChain(&Chain{Name: "policy/x", Rules: []Rule{rule(drop)}})
				r.AddChain(&Chain{Name: "pod/b", Rules: []Rule{rule(jump("policy/x"))}})
				r.Sets["pods"].Elements[AddrElement(addr("10.0.0.1"))] = JumpTo("pod/b")
			}, `
prepare:
	add chain pod/b
	add rule pod/b jump policy/x
	delete element pods { 10.0.0.1 }
	add element pods { 10.0.0.1 : drop }
switch:
	flush chain policy/x
	add rule policy/x drop
finish (after a wait):
	delete element pods { 10.0.0.1 }
	add element pods { 10.0.0.1 : jump pod/b }`,
		},
		{
			"an open pod is isolated at once",
			func(r *Ruleset) {
				r.AddChain(&Chain{Name: "policy/x", Rules: []Rule{rule(drop)}})
				r.Sets["pods"].Elements[AddrElement(addr("10.0.0.2"))] = JumpTo("pod/a")
			}, `
switch:
	flush chain policy/x
	delete element pods { 10.0.0.2 }
	add rule policy/x drop
	add element pods { 10.0.0.2 : jump pod/a }`,
		},
		{
			"another chain is rewritten: no fence",
			func(r *Ruleset) {
				r.AddChain(&Chain{Name: "policy/y", Rules: []Rule{rule(drop)}})
				r.Sets["pods"].Elements[AddrElement(addr("10.0.0.3"))] = JumpTo("pod/a")
			}, `
switch:
	flush chain policy/y
	add rule policy/y drop
	add element pods { 10.0.0.3 : jump pod/a }`,
		},
		{
			"the base chain is rewritten: every changed key is fenced",
			func(r *Ruleset) {
				r.Chains["egress/1"].Rules = r.Chains["egress/1"].Rules[1:]
				r.Sets["pods"].Elements[AddrElement(addr("10.0.0.1"))] = Verdict{Kind: Accept}
				r.Sets["pods"].Elements[AddrElement(addr("10.0.0.3"))] = Verdict{Kind: Accept}
				delete(r.Chains, "pod/a")
			}, `
prepare:
	delete element pods { 10.0.0.1 }
	add element pods { 10.0.0.1 : drop }
switch:
	flush chain egress/1
	add rule egress/1 ip saddr vmap @pods
	add rule egress/1 drop
finish (after a wait):
	delete element pods { 10.0.0.1 }
	add element pods { 10.0.0.1 : accept, 10.0.0.3 : accept }
	flush chain pod/a
	delete chain pod/a`,
		},
		{
			"a new shape overlaps the old one",
			func(r *Ruleset) {
				c := *r.Chains["egress/1"]
				c.Name = "egress/2"
				c.Rules = c.Rules[1:]
				r.AddChain(&c)
				delete(r.Chains, "egress/1")
				delete(r.Sets, "guard")
			}, `
prepare:
	add chain egress/2 { type filter hook forward priority filter - 2; policy accept; }
	add rule egress/2 ip saddr vmap @pods
	add rule egress/2 drop
finish (after a wait):
	flush chain egress/1
	delete set guard
	delete chain egress/1`,
		},
		{
			"a base chain that moves has a twin meanwhile",
			func(r *Ruleset) {
				r.Chains["egress/1"].Base = &Base{Hook: HookForward, Priority: -3}
			}, `
prepare:
	add chain egress/1.standin { type filter hook forward priority filter - 3; policy accept; }
	add rule egress/1.standin ip daddr @guard drop
	add rule egress/1.standin ip saddr vmap @pods
	add rule egress/1.standin drop
finish (after a wait):
	flush chain egress/1
	delete chain egress/1
	add chain egress/1 { type filter hook forward priority filter - 3; policy accept; }
	add rule egress/1 ip daddr @guard drop
	add rule egress/1 ip saddr vmap @pods
	add rule egress/1 drop`,
		},
		{
			"a host port comes, with its pod",
			func(r *Ruleset) {
				r.Sets["ports"].Elements[AddrProtoPortElement(addr("192.0.2.1"), 17,
					53)] = NATTarget(netip.MustParseAddrPort("10.0.0.3:53"))
				r.AddChain(&Chain{Name: "pod/b", Rules: []Rule{rule(drop)}})
				r.Sets["pods"].Elements[AddrElement(addr("10.0.0.3"))] = JumpTo("pod/b")
				r.Sets["hosts"].Elements[AddrElement(addr("10.0.0.3"))] = Verdict{}
			}, `
prepare:
	add chain pod/b
	add rule pod/b drop
switch:
	add element pods { 10.0.0.3 : jump pod/b }
	add element ports { 192.0.2.1 . udp . 53 : 10.0.0.3 . 53 }
finish:
	add element hosts { 10.0.0.3 }`,
		},
		{
			"a host port goes",
			func(r *Ruleset) { clear(r.Sets["ports"].Elements) }, `
switch:
	delete element ports { 192.0.2.1 . tcp . 80 }`,
		},
		{
			"a host port changes hands",
			func(r *Ruleset) {
				r.Sets["ports"].Elements[AddrProtoPortElement(addr("192.0.2.1"), 6,
					80)] = NATTarget(netip.MustParseAddrPort("10.0.0.2:8080"))
			}, `
switch:
	delete element ports { 192.0.2.1 . tcp . 80 }
	add element ports { 192.0.2.1 . tcp . 80 : 10.0.0.2 . 8080 }`,
		},
		{
			"no key of a NAT map is fenced",
			func(r *Ruleset) {
				r.Sets["ports"].Elements[AddrProtoPortElement(addr("192.0.2.1"), 6,
					80)] = NATTarget(netip.MustParseAddrPort("10.0.0.2:8080"))
				r.Sets["ports"].Elements[AddrProtoPortElement(addr("192.0.2.1"), 6,
					81)] = NATTarget(netip.MustParseAddrPort("10.0.0.2:8081"))
				r.Chains["dstnat/1"].Rules = []Rule{rule(DNAT{hostPortKey, "ports"})}
			}, `
switch:
	flush chain dstnat/1
	delete element ports { 192.0.2.1 . tcp . 80 }
	add rule dstnat/1 dnat ip to ip daddr . meta l4proto . th dport map @ports
	add element ports { 192.0.2.1 . tcp . 80 : 10.0.0.2 . 8080, 192.0.2.1 . tcp . 81 : 10.0.0.2 . 8081 }`,
		},
		{
			"host ports end: the rule lets go of the map first",
			func(r *Ruleset) {
				delete(r.Sets, "ports")
				r.Chains["dstnat/1"].Rules = nil
			}, `
switch:
	flush chain dstnat/1
finish (after a wait):
	delete map ports`,
		},
		{
			"a new shape of a NAT chain: the old one ends in the switch",
			func(r *Ruleset) {
				c := *r.Chains["dstnat/1"]
				c.Name = "dstnat/2"
				r.AddChain(&c)
				delete(r.Chains, "dstnat/1")
			}, `
prepare:
	add chain dstnat/2 { type nat hook prerouting priority dstnat; policy accept; }
	add rule dstnat/2 fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports
switch (after a wait):
	flush chain dstnat/1
finish (after a wait):
	flush chain dstnat/1
	delete chain dstnat/1`,
		},
		{
			"a map's targets become IPv6: its rules are written anew",
			func(r *Ruleset) {
				r.AddSet(&Set{Name: "ports", Key: hostPortKey, Targets: DstAddr6})
			}, `
switch:
	flush chain dstnat/1
	delete map ports
	add map ports { type ipv4_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
	add rule dstnat/1 fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports`,
		},
	} {
		have, want := smallTable(), smallTable()
		c.change(want)
		p := Diff(have, want)
		batch := Plan(have, p)
		diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), strings.TrimSuffix(batch.String(), "\n"))
		if diff != "" {
			t.Errorf("%s: want -, got +\n%s", c.name, diff)
		}
		if p.Empty() != isEmpty(batch) {
			t.Errorf("%s: an empty patch is %v, an empty batch %v", c.name, p.Empty(),
				isEmpty(batch))
		}
		if have.String() != smallTable().String() {
			t.Errorf("%s: Plan changed what it reads", c.name)
		}
		have.Merge(p)
		if have.String() != want.String() {
			t.Errorf("%s: merged\n%s\nwant\n%s", c.name, have, want)
		}
	}
}

// From nothing, the table comes first and base chains last.
func TestPlanFromNothing(t *testing.T) {
	t.Parallel()
	batch := Plan(NewRuleset(), Diff(NewRuleset(), smallTable()))
	if len(batch.Switch)+len(batch.Finish) > 0 || batch.WaitBeforeSwitch || batch.WaitBeforeFinish {
		t.Errorf("more than prepare:\n%s", batch)
	}
	if batch.Prepare[0].Kind != AddTable {
		t.Errorf("the first operation is %s", batch.Prepare[0])
	}
	base := false
	for _, op := range batch.Prepare {
		isBase := op.Chain != nil && op.Chain.Base != nil
		if base && !isBase {
			t.Errorf("%s comes after a base chain", op)
		}
		base = isBase
	}
	if !base {
		t.Error("there is no base chain")
	}
}

func TestPatchThatSaysWhatIsSo(t *testing.T) {
	t.Parallel()
	r := smallTable()
	p := Patch{
		Chains: map[string]*Chain{"policy/x": smallTable().Chains["policy/x"], "none": nil},
		Sets: map[string]*SetPatch{
			"none":  nil,
			"guard": {Create: smallTable().Sets["guard"]},
			"hosts": {
				Put: map[Element]Verdict{AddrElement(addr("10.0.0.1")): {}},
				Remove: map[Element]struct{}{
					AddrElement(addr("10.0.0.1")): {}, // put wins
					AddrElement(addr("10.0.0.9")): {}, // isn't there
				},
			},
		},
	}
	if batch := Plan(r, p); !isEmpty(batch) {
		t.Errorf("there is something to do:\n%s", batch)
	}
	r.Merge(p)
	if r.String() != smallTable().String() {
		t.Errorf("merged:\n%s", r)
	}
}

// isEmpty reports whether there is nothing to do.
func isEmpty(b Batch) bool {
	return len(b.Ops()) == 0
}
