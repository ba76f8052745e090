package others

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/test/testnet"
)

func TestBlockersOfNFTables(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, ruleset string
		want          []string
	}{
		{"an empty kernel", "", nil},
		{
			"a policy in each family", `
				table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; } }
				table ip6 filter { chain FORWARD { type filter hook forward priority 0; policy drop; } }
				table inet fw { chain through { type filter hook forward priority 10; policy drop; } }`,
			[]string{
				"nftables table ip filter, chain FORWARD (policy drop)",
				"nftables table ip6 filter, chain FORWARD (policy drop)",
				"nftables table inet fw, chain through (policy drop)",
			},
		},
		{
			"a last rule", `
				table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept;
					ct state established accept
					reject with icmpx admin-prohibited } }
				table ip fw { chain f { type filter hook forward priority 10; iifname "x" accept; counter log drop comment "no" } }`,
			[]string{
				"nftables table inet firewalld, chain filter_FORWARD (policy accept, last rule " +
					"reject)",
				"nftables table ip fw, chain f (policy accept, last rule drop)",
			},
		},
		{
			"what lets packets through, or doesn't see them", `
				table ip filter { chain FORWARD { type filter hook forward priority 0; ip saddr 192.0.2.1 drop; } }
				table ip limited { chain f { type filter hook forward priority 0; limit rate over 9000/second drop; } }
				table ip open { chain f { type filter hook forward priority 0; drop; accept; } }
				table ip other { chain INPUT { type filter hook input priority 0; policy drop; } chain FORWARD { drop; } }
				table ip asleep { flags dormant; chain FORWARD { type filter hook forward priority 0; policy drop; } }
				table bridge filter { chain FORWARD { type filter hook forward priority 0; policy drop; } }
				table arp filter { chain INPUT { type filter hook input priority 0; policy drop; } }
				table inet sluice { chain forward { type filter hook forward priority 0; policy drop; } }`,
			nil,
		},
		{
			"a namesake of ours in another family", `
				table ip sluice { chain forward { type filter hook forward priority 0; policy drop; } }`,
			[]string{"nftables table ip sluice, chain forward (policy drop)"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := world{t: t, node: testnet.NewNode(t)}
			w.install(tt.ruleset)
			if diff := cmp.Diff(tt.want, w.blockers(Forward)); diff != "" {
				t.Errorf("blockers, -want +got:\n%s", diff)
			}
		})
	}
}

func TestBlockersOfIPTables(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		program string
		setup   [][]string
		want    []string
	}{
		{"iptables-nft", [][]string{{"-P", "FORWARD", "DROP"}},
			[]string{"nftables table ip filter, chain FORWARD (policy drop)"}},
		{
			"ip6tables-nft",
			[][]string{{"-A", "FORWARD", "-m", "comment", "--comment", "no more", "-j", "REJECT"}},
			[]string{"nftables table ip6 filter, chain FORWARD (policy accept, last rule reject)"},
		},
		{"iptables-legacy", [][]string{{"-P", "FORWARD", "DROP"}},
			[]string{"legacy iptables table filter, chain FORWARD (policy DROP)"}},
		{"ip6tables-legacy", [][]string{{"-P", "FORWARD", "DROP"}},
			[]string{"legacy ip6tables table filter, chain FORWARD (policy DROP)"}},
		{
			// the policy isn't where the chain begins, and others' isn't this one's
			"iptables-legacy",
			[][]string{
				{"-P", "INPUT", "DROP"}, {"-A", "INPUT", "-j", "ACCEPT"}, {"-N", "OWN"},
				{"-A", "FORWARD", "-j", "OWN"},
				{"-A", "FORWARD", "-s", "192.0.2.1", "-j", "DROP"}, {"-P", "FORWARD", "ACCEPT"},
			}, nil,
		},
		{
			"iptables-legacy", [][]string{{"-A", "FORWARD", "-i", "x", "-j", "ACCEPT"},
				{"-A", "FORWARD", "-m", "comment", "--comment", "no more", "-j", "REJECT"}},
			[]string{
				"legacy iptables table filter, chain FORWARD (policy ACCEPT, last rule REJECT)"},
		},
		{"ip6tables-legacy", [][]string{{"-A", "FORWARD", "-j", "DROP"}},
			[]string{
				"legacy ip6tables table filter, chain FORWARD (policy ACCEPT, last rule DROP)"}},
		{
			"ip6tables-legacy", // none of them takes all that comes as far
			[][]string{{"-A", "FORWARD", "-j", "DROP"},
				{"-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"}}, nil,
		},
		{"iptables-legacy", [][]string{{"-A", "FORWARD", "-j", "DROP"},
			{"-A", "FORWARD", "!", "-i", "x", "-j", "DROP"}}, nil},
		{"iptables-legacy",
			[][]string{{"-A", "FORWARD", "-j", "DROP"}, {"-A", "FORWARD", "-j", "ACCEPT"}}, nil},
		{
			"ip6tables-legacy",
			[][]string{
				{"-A", "INPUT", "-j", "ACCEPT"}, {"-N", "OWN"}, {"-A", "FORWARD", "-j", "OWN"},
				{"-P", "FORWARD", "DROP"},
				{"-A", "FORWARD", "-s", "2001:db8::1", "-j", "ACCEPT"},
			},
			[]string{"legacy ip6tables table filter, chain FORWARD (policy DROP)"},
		},
	} {
		t.Run(tt.program, func(t *testing.T) {
			t.Parallel()
			w := world{t: t, node: testnet.NewNode(t)}
			for _, args := range tt.setup {
				w.run(tt.program, args...)
			}
			if diff := cmp.Diff(tt.want, w.blockers(Forward)); diff != "" {
				t.Errorf("blockers, -want +got:\n%s", diff)
			}
		})
	}
}

// Each hook's own chains are named, with any chains on the other hooks.
func TestBlockersOfEachHook(t *testing.T) {
	t.Parallel()
	w := world{t: t, node: testnet.NewNode(t)}
	w.run("iptables-nft", "-P", "INPUT", "DROP")
	w.run("ip6tables-nft", "-A", "OUTPUT", "-j", "REJECT")
	w.run("iptables-legacy", "-P", "OUTPUT", "DROP")
	w.run("ip6tables-legacy", "-A", "INPUT", "-j", "DROP")
	w.install(`table inet fw {
		chain in { type filter hook input priority 10; policy accept; ct state established,related accept; reject with icmpx admin-prohibited; }
		chain out { type filter hook output priority 10; policy drop; }
		chain nat { type nat hook input priority 10; policy drop; }
		chain through { type filter hook forward priority 10; policy drop; } }
		table inet sluice { chain in { type filter hook input priority 0; policy drop; } }`)
	for _, tt := range []struct {
		hook Hook
		want []string
	}{
		{Input, []string{
			"nftables table ip filter, chain INPUT (policy drop)",
			"nftables table inet fw, chain in (policy accept, last rule reject)",
			"legacy ip6tables table filter, chain INPUT (policy ACCEPT, last rule DROP)",
		}},
		{Output, []string{
			"nftables table ip6 filter, chain OUTPUT (policy accept, last rule reject)",
			"nftables table inet fw, chain out (policy drop)",
			"legacy iptables table filter, chain OUTPUT (policy DROP)",
		}},
		{Forward, []string{"nftables table inet fw, chain through (policy drop)"}},
	} {
		if diff := cmp.Diff(tt.want, w.blockers(tt.hook)); diff != "" {
			t.Errorf("blockers on %s, -want +got:\n%s", tt.hook, diff)
		}
	}
}

// Any entries are read to an end or refused.
func FuzzLegacyEntries(f *testing.F) {
	for _, family := range legacyFamilies() {
		entry := make([]byte, family.entryLen+targetHeader+8)
		binary.NativeEndian.PutUint16(entry[family.targetOffset:], uint16(family.entryLen))
		binary.NativeEndian.PutUint16(entry[family.targetOffset+2:], uint16(len(entry)))
		f.Add(entry, len(entry), family.name == familyIP)
		f.Add(append(slices.Clone(entry), entry...), 2*len(entry), family.name == familyIP)
	}
	f.Fuzz(func(t *testing.T, entries []byte, policy int, is4 bool) {
		family := legacyFamilies()[1]
		if is4 {
			family = legacyFamilies()[0]
		}
		table := legacyTable{family: family, entries: entries}
		if last, err := table.lastOf(0, policy); err != nil && last != "" {
			t.Errorf("%q with error %v", last, err)
		}
		if chains, err := family.chainsOf(entries); err != nil && len(chains) > 0 {
			t.Errorf("%q with error %v", chains, err)
		}
	})
}

// Asking the kernel for a legacy table creates it.
func TestBlockersCreateNothing(t *testing.T) {
	t.Parallel()
	w := world{t: t, node: testnet.NewNode(t)}
	w.blockers(Forward)
	err := w.node.Do(func() error {
		for _, f := range legacyFamilies() {
			names, err := os.ReadFile(threadNet + "/" + f.names)
			if err == nil && strings.Contains(string(names), legacyFilter) {
				t.Errorf("there is a legacy %s table %s", f.program, names)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.node.Nft("list", "ruleset"); got != "" {
		t.Errorf("there are nftables tables:\n%s", got)
	}
}

func TestLegacyEntriesOutOfBounds(t *testing.T) {
	t.Parallel()
	for _, f := range legacyFamilies() {
		for _, length := range []int{0, f.targetOffset, f.targetOffset + 1, f.targetOffset + 2,
			f.targetOffset + targetHeader} {
			table := legacyTable{family: f, entries: make([]byte, length)}
			if v, err := table.verdict(length - 1); err == nil {
				t.Errorf("%s: verdict %d at the end of %d bytes", f.program, v, length)
			}
			if last, err := table.lastOf(0, 2*f.entryLen); err == nil {
				t.Errorf("%s: last rule %q in %d bytes", f.program, last, length)
			}
		}
	}
}
