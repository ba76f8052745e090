package forward

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/internal/testnet"
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
				"nftables table inet firewalld, chain filter_FORWARD (policy accept, last rule reject)",
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
			if diff := cmp.Diff(tt.want, w.blockers()); diff != "" {
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
		{"iptables-nft", [][]string{{"-P", "FORWARD", "DROP"}}, []string{"nftables table ip filter, chain FORWARD (policy drop)"}},
		{
			"ip6tables-nft", [][]string{{"-A", "FORWARD", "-m", "comment", "--comment", "no more", "-j", "REJECT"}},
			[]string{"nftables table ip6 filter, chain FORWARD (policy accept, last rule reject)"},
		},
		{"iptables-legacy", [][]string{{"-P", "FORWARD", "DROP"}}, []string{"legacy iptables table filter, chain FORWARD (policy DROP)"}},
		{"ip6tables-legacy", [][]string{{"-P", "FORWARD", "DROP"}}, []string{"legacy ip6tables table filter, chain FORWARD (policy DROP)"}},
		{
			"iptables-legacy", // the policy isn't where the chain begins, and others' isn't this one's
			[][]string{
				{"-P", "INPUT", "DROP"}, {"-A", "INPUT", "-j", "ACCEPT"}, {"-N", "OWN"}, {"-A", "FORWARD", "-j", "OWN"},
				{"-A", "FORWARD", "-s", "192.0.2.1", "-j", "DROP"}, {"-P", "FORWARD", "ACCEPT"},
			}, nil,
		},
		{
			"ip6tables-legacy",
			[][]string{
				{"-A", "INPUT", "-j", "ACCEPT"}, {"-N", "OWN"}, {"-A", "FORWARD", "-j", "OWN"}, {"-P", "FORWARD", "DROP"},
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
			if diff := cmp.Diff(tt.want, w.blockers()); diff != "" {
				t.Errorf("blockers, -want +got:\n%s", diff)
			}
		})
	}
}

// Asking the kernel for a legacy table creates it.
func TestBlockersCreateNothing(t *testing.T) {
	t.Parallel()
	w := world{t: t, node: testnet.NewNode(t)}
	w.blockers()
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
		for _, length := range []int{0, f.targetOffset, f.targetOffset + 1, f.targetOffset + 2, f.targetOffset + targetHeader} {
			table := legacyTable{family: f, entries: make([]byte, length)}
			if v, err := table.verdict(length - 1); err == nil {
				t.Errorf("%s: verdict %d at the end of %d bytes", f.program, v, length)
			}
		}
	}
}
