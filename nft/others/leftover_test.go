package others

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/test/testnet"
)

// TestLeftovers: what other engines leave is found in nftables and in both families of legacy
// iptables, and nothing else is. The control is a node without any of it.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	w := world{t: t, node: testnet.NewNode(t)}
	leftovers := func() (lines []string) {
		if err := w.node.Do(func() error {
			found, err := Leftovers()
			for _, l := range found {
				lines = append(lines, l.String())
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return lines
	}
	w.install(`table ip filter { chain FORWARD { } chain KUBE-FORWARD { } chain DOCKER { } }
		table inet sluice { chain cali-ours { } }`)
	w.run("iptables-legacy", "-t", "nat", "-N", "KUBE-SERVICES")
	if got := leftovers(); len(got) > 0 {
		t.Errorf("with none there are %q", got)
	}
	w.install(`table ip filter { chain cali-FORWARD { } chain KUBE-ROUTER-INPUT { } }
		table ip nat { chain FLANNEL-POSTRTG { } chain cali-d { } chain cali-c { } chain cali-b { } chain cali-a { } }
		table inet flannel-ipv4 { chain postrtg { } }
		table ip6 calico { }`)
	w.run("iptables-legacy", "-t", "nat", "-N", "FLANNEL-POSTRTG")
	w.run("iptables-legacy", "-t", "nat", "-A", "FLANNEL-POSTRTG", "-s", "10.244.0.0/16", "-j",
		"MASQUERADE")
	w.run("ip6tables-legacy", "-N", "KUBE-POD-FW-ABCDEFGHIJKLMNOP")
	want := []string{
		"Calico: nftables table ip filter, chains cali-FORWARD",
		"Calico: nftables table ip nat, chains cali-a, cali-b, cali-c and 1 more",
		"Calico: nftables table ip6 calico",
		"flannel: legacy iptables table nat, chains FLANNEL-POSTRTG",
		"flannel: nftables table inet flannel-ipv4, chains postrtg",
		"flannel: nftables table ip nat, chains FLANNEL-POSTRTG",
		"kube-router: legacy ip6tables table filter, chains KUBE-POD-FW-ABCDEFGHIJKLMNOP",
		"kube-router: nftables table ip filter, chains KUBE-ROUTER-INPUT",
	}
	if diff := cmp.Diff(want, leftovers()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestLeftoversLoadNothing: asking for a table would make it.
func TestLeftoversLoadNothing(t *testing.T) {
	t.Parallel()
	w := world{t: t, node: testnet.NewNode(t)}
	err := w.node.Do(func() error {
		_, err := Leftovers()
		if err != nil {
			return err
		}
		for _, f := range legacyFamilies() {
			tables, err := f.tables(threadNet)
			if err != nil || len(tables) > 0 {
				t.Errorf("%s: looking has made %q (%v)", f.program, tables, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMalformedEntries: entries that can't be true end in an error, whatever is cut or wrong.
func TestMalformedEntries(t *testing.T) {
	t.Parallel()
	for _, f := range legacyFamilies() {
		entry := make([]byte, f.entryLen+targetHeader)
		entry[f.targetOffset], entry[f.targetOffset+2] = byte(f.entryLen), byte(len(entry))
		if chains, err := f.chainsOf(entry); err != nil || len(chains) > 0 {
			t.Errorf("control: %q, %v", chains, err)
		}
		for name, change := range map[string]func(e []byte) []byte{
			"cut":              func(e []byte) []byte { return e[:len(e)-1] },
			"of no length":     func(e []byte) []byte { e[f.targetOffset+2] = 0; return e },
			"target in front":  func(e []byte) []byte { e[f.targetOffset] = 1; return e },
			"target behind it": func(e []byte) []byte { e[f.targetOffset] = 255; return e },
			"no whole entry":   func(e []byte) []byte { return e[:f.targetOffset] },
		} {
			bad := change(append([]byte(nil), entry...))
			if chains, err := f.chainsOf(bad); err == nil {
				t.Errorf("%s: %s: %q and no error", f.name, name, fmt.Sprint(chains))
			}
		}
	}
}
