package table

import (
	"context"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/nft"
)

// Whatever somebody does to the table by hand, Check names it and Sync repairs it.
func TestHandEditsHeal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script string
		named        string // part of a line of Check
	}{
		{"rule added", `add rule inet sluice policy/dev/allow-80/egress accept`,
			"chain policy/dev/allow-80/egress: rule 14 isn't ours"},
		{"rule inserted", `insert rule inet sluice egress/1 accept`, "chain egress/1: rule 1 is"},
		{"rules flushed", `flush chain inet sluice pod/dev/web-0/egress`,
			"chain pod/dev/web-0/egress: rule 1 is missing"},
		{"unknown expression", `add rule inet sluice empty meta mark set 1`,
			"chain empty: rule 1 isn't ours"},
		{"expression the library doesn't know", `add rule inet sluice empty socket mark 1 drop`,
			"chain empty: rule 1 isn't ours"},
		{"goto", `add rule inet sluice empty goto policy/dev/allow-80/egress`,
			"chain empty: rule 1 isn't ours"},
		{"anonymous set", `add rule inet sluice empty ip saddr { 10.0.0.1, 10.0.0.2 } accept`,
			"chain empty: rule 1 isn't ours"},
		{"element added", `add element inet sluice set/hosts4 { 10.0.0.99 }`,
			"set set/hosts4: 10.0.0.99 isn't ours"},
		{"element deleted", `delete element inet sluice set/hosts4 { 10.0.0.1 }`,
			"set set/hosts4: 10.0.0.1 is missing"},
		{"range added", `add element inet sluice set/blocks4 { 11.0.0.0/8 }`,
			"11.0.0.0-11.255.255.255 isn't ours"},
		{"last range deleted",
			`delete element inet sluice set/blocks4 { 192.168.0.7-255.255.255.255 }`,
			"192.168.0.7-255.255.255.255 is missing"},
		{"ports added", `add element inet sluice set/ports { 443 . tcp }`, "443 . tcp isn't ours"},
		{
			"verdict changed", `delete element inet sluice map/veth4 { 10.0.0.3 . "slup3" }
			add element inet sluice map/veth4 { 10.0.0.3 . "slup3" : accept }`,
			`10.0.0.3 . "slup3" : drop is accept`,
		},
		{
			"verdict made a goto", `delete element inet sluice map/veth4 { 10.0.0.3 . "slup3" }
			add element inet sluice map/veth4 { 10.0.0.3 . "slup3" : goto empty }`,
			`10.0.0.3 . "slup3" : drop is foreign`,
		},
		{"chain added", `add chain inet sluice mine { accept; }`, "chain mine isn't ours"},
		{"base chain added",
			`add chain inet sluice mine { type filter hook forward priority 7; policy drop; }`,
			"chain mine isn't ours"},
		{"chains that refer to each other",
			`add chain inet sluice one; add chain inet sluice two { jump one; }`,
			"chain two isn't ours"},
		{"set added",
			`add set inet sluice mine { type mark; flags timeout; elements = { 1 timeout 1h } }`,
			"set mine isn't ours"},
		{"map and chain added",
			`add chain inet sluice one; add map inet sluice mine { type mark : verdict; elements = { 1 : jump one } }`, "set mine isn't ours"},
		{"object added", `add counter inet sluice mine`, "object mine (type 1) isn't ours"},
		{"object in use",
			`add counter inet sluice mine; add rule inet sluice empty counter name mine`,
			"object mine"},
		{"policy", `add chain inet sluice egress/1 { policy drop; }`, "policy drop"},
		{"base chain deleted",
			`flush chain inet sluice ingress/1; delete chain inet sluice ingress/1`,
			"chain ingress/1 is missing"},
		{
			"base chain moved",
			`flush chain inet sluice ingress/1; delete chain inet sluice ingress/1
			add chain inet sluice ingress/1 { type filter hook input priority 3; }`,
			"chain ingress/1: is",
		},
		{
			"base chain made regular",
			`flush chain inet sluice ingress/1; delete chain inet sluice ingress/1
			add chain inet sluice ingress/1; add chain inet sluice x { jump ingress/1; }`,
			"chain ingress/1: is",
		},
		{
			"regular chain made base", `delete chain inet sluice empty
			add chain inet sluice empty { type filter hook forward priority 3; policy drop; }`,
			"chain empty: is",
		},
		{
			"set redefined", `delete set inet sluice set/empty4
			add set inet sluice set/empty4 { type ipv4_addr; elements = { 10.0.0.1 } }`,
			"set set/empty4: its definition is another",
		},
		{
			"set in use redefined",
			`flush chain inet sluice policy/dev/allow-80/egress; delete set inet sluice set/hosts4
			add set inet sluice set/hosts4 { type ether_addr; }
			add rule inet sluice policy/dev/allow-80/egress ether saddr @set/hosts4 accept
			add rule inet sluice empty ether saddr @set/hosts4 accept`,
			"set set/hosts4: its definition is another",
		},
		{
			"map redefined", `flush chain inet sluice egress/1; delete map inet sluice map/addr4
			add map inet sluice map/addr4 { type ipv4_addr : mark; elements = { 10.0.0.1 : 1 } }`,
			"set map/addr4: its definition is another",
		},
		{"NAT element added", `add element inet sluice nat/any4 { tcp . 81 : 10.0.0.1 . 8080 }`,
			"set nat/any4: tcp . 81 : 10.0.0.1 . 8080 isn't ours"},
		{"NAT element deleted", `delete element inet sluice nat/any6 { tcp . 80 }`,
			"set nat/any6: tcp . 80 : fd00::1 . 8080 is missing"},
		{
			"NAT target changed", `delete element inet sluice nat/any4 { tcp . 80 }
			add element inet sluice nat/any4 { tcp . 80 : 10.0.0.66 . 8080 }`,
			"set nat/any4: tcp . 80 : 10.0.0.1 . 8080 is 10.0.0.66 . 8080",
		},
		{
			"NAT map redefined",
			`flush chain inet sluice dstnat/1; flush chain inet sluice output-nat/1; delete map inet sluice nat/any6
			add map inet sluice nat/any6 { type inet_proto . inet_service : ipv4_addr . inet_service; elements = { tcp . 80 : 10.0.0.1 . 8080 } }
			add rule inet sluice dstnat/1 dnat ip to meta l4proto . th dport map @nat/any6`,
			"set nat/any6: its definition is another",
		},
		{
			"NAT map made a verdict map",
			`flush chain inet sluice dstnat/1; delete map inet sluice nat/empty4
			add map inet sluice nat/empty4 { type ipv4_addr . inet_proto . inet_service : verdict; }`, "set nat/empty4: its definition is another",
		},
		{
			"ports of a masquerade changed", `flush chain inet sluice srcnat/1
			add rule inet sluice srcnat/1 ct status dnat masquerade
			add rule inet sluice srcnat/1 ip saddr @set/networks4 return
			add rule inet sluice srcnat/1 meta l4proto udp masquerade to :16384-65534 fully-random`,
			"chain srcnat/1: rule 3 is",
		},
		{
			"masquerade made less random", `flush chain inet sluice srcnat/1
			add rule inet sluice srcnat/1 ct status dnat masquerade random`,
			"chain srcnat/1: rule 1 is",
		},
		{
			"source changed", `flush chain inet sluice input-nat/1
			add rule inet sluice input-nat/1 snat ip to 10.0.0.9`, "chain input-nat/1: rule 1 is",
		},
		{
			"NAT chain made a filter chain",
			`flush chain inet sluice srcnat/2; delete chain inet sluice srcnat/2
			add chain inet sluice srcnat/2 { type filter hook postrouting priority 101; }`,
			"chain srcnat/2: is",
		},
		{"prefix widened",
			`flush chain inet sluice prefixes; add rule inet sluice prefixes ip saddr 10.0.0.0/7 ip daddr 10.1.2.0/24 return`, "chain prefixes: rule 1 is"},
		{"route back not asked for",
			`flush chain inet sluice raw/2; add rule inet sluice raw/2 udp dport 8472 notrack; add rule inet sluice raw/2 iifname "slup*" fib saddr . iif oif exists counter drop`, "chain raw/2: rule 2 is"},
		{"dormant", `add table inet sluice { flags dormant; }`, "table sluice is dormant"},
		{"table flushed", `flush table inet sluice`, "rule 1 is missing"},
		{"table deleted", `delete table inet sluice`, "table sluice is missing"},
		{"ruleset flushed", `flush ruleset`, "table sluice is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newNamespace(t)
			table := n.open(Options{})
			mustSync(t, table, everything())
			before := n.Listing()
			n.Load(strings.ReplaceAll(c.script, "\t\t\t", ""))
			list, err := table.Check(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(list, "\n"); !strings.Contains(got, c.named) {
				t.Errorf("Check says\n%s\nwithout %q", got, c.named)
			}
			mustSync(t, table, everything())
			mustMatch(t, table)
			if after := n.Listing(); after != before {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
			flushes := table.flushes
			mustSync(t, table, everything())
			if table.flushes != flushes {
				t.Error("it isn't at rest after Sync")
			}
		})
	}
}

// Nothing outside the table changes, and what others do with the same hooks stays theirs, to the
// byte.
func TestForeignTablesStay(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	n.Load(`
table inet other { # same hooks, same names
	set set/hosts4 { type ipv4_addr; elements = { 1.1.1.1 } }
	map m { type ipv4_addr : verdict; elements = { 1.1.1.1 : jump empty } }
	counter mine { packets 5 bytes 7 }
	chain empty { drop; }
	chain egress/1 { type filter hook forward priority -2; policy drop; ip saddr vmap @m; ip saddr @set/hosts4 counter name mine accept; }
}
table ip sluice { # our name, another family
	chain egress/1 { type filter hook forward priority -2; policy drop; jump x; }
	chain x { }
}
table bridge sluice { chain c { type filter hook forward priority 0; }; }
`)
	tables := [][]string{{"inet", "other"}, {"ip", "sluice"}, {"bridge", "sluice"}}
	list := func() string {
		var all strings.Builder
		for _, name := range tables {
			all.WriteString(n.Nft("-a", "list", "table", name[0], name[1]))
		}
		return all.String()
	}
	before := list()
	table := n.open(Options{})
	mustSync(t, table, everything())
	mustSync(t, table, nft.NewRuleset())
	mustSync(t, table, everything())
	mustApply(t, table, nft.Diff(everything(), nft.NewRuleset()))
	if after := list(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}
