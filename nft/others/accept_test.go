package others

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/test/stretch"
	"github.com/sluice-net/sluice/test/testnet"
)

// ensure has an Accepter do its work on the node.
func (w world) ensure(a *Accepter, networks ...netip.Prefix) (changed bool, err error) {
	w.t.Helper()
	err = w.node.Do(func() (err error) {
		changed, err = a.Ensure(w.t.Context(), networks)
		return err
	})
	return changed, err
}

func (w world) mustEnsure(a *Accepter, wantChanged bool, networks ...netip.Prefix) {
	w.t.Helper()
	changed, err := w.ensure(a, networks...)
	if err != nil || changed != wantChanged {
		w.t.Fatalf("Ensure changed something: %v, %v; want %v", changed, err, wantChanged)
	}
}

func (w world) mustRemove(a *Accepter) {
	w.t.Helper()
	if err := w.node.Do(func() error { return a.Remove(w.t.Context()) }); err != nil {
		w.t.Fatal(err)
	}
}

func (w world) ruleset() string { return w.node.Nft("--stateless", "list", "ruleset") }

func (w world) installDocker(program string) {
	w.t.Helper()
	for _, args := range []string{
		"-P FORWARD DROP", "-N DOCKER-USER", "-N DOCKER-FORWARD",
		"-A DOCKER-USER -s 192.0.2.1 -j DROP", "-A DOCKER-USER -j RETURN",
		"-A FORWARD -j DOCKER-USER", "-A FORWARD -j DOCKER-FORWARD",
		"-A DOCKER-FORWARD -i docker0 -j ACCEPT",
	} {
		if strings.HasPrefix(program, "ip6") {
			args = strings.ReplaceAll(args, "192.0.2.1", "2001:db8::1")
		}
		w.run(program, strings.Fields(args)...)
	}
}

const ourRules4 = `-A CHAIN -s 10.244.0.0/15 -m comment --comment "sluice: pod network" -j ACCEPT
-A CHAIN -d 10.244.0.0/15 -m comment --comment "sluice: pod network" -j ACCEPT
`

// The same for all: a control, a firewall that blocks the pods, the accepting rules, a flush, other
// networks, and the end.
func TestAccepter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		install  func(w world)
		flush    string // what another program does
		blocked  []string
		readable []string // programs that have to understand the result
	}{
		{
			"Docker with iptables-nft",
			func(w world) { w.installDocker("iptables-nft"); w.installDocker("ip6tables-nft") },
			"flush chain ip filter DOCKER-USER; flush chain ip6 filter DOCKER-USER",
			[]string{familyIP, familyIP6}, []string{"iptables-nft", "ip6tables-nft"},
		},
		{
			"a policy in ip filter", func(w world) {
				w.install(`table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; } }`)
			}, "flush chain ip filter FORWARD", []string{familyIP}, []string{"iptables-nft"},
		},
		{
			"a rejecting chain of ip6 filter", func(w world) {
				for _, args := range []string{
					"-N ufw6-reject-forward", "-A ufw6-reject-forward -j REJECT",
					"-A FORWARD -j ufw6-reject-forward",
				} {
					w.run("ip6tables-nft", strings.Fields(args)...)
				}
			}, "flush chain ip6 filter FORWARD; add rule ip6 filter FORWARD reject",
			[]string{familyIP6}, []string{"ip6tables-nft"},
		},
		{
			"a rejecting last rule in inet", func(w world) {
				w.install(`table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10;
					ct state established,related accept
					reject with icmpx admin-prohibited } }`)
			}, "flush chain inet firewalld filter_FORWARD; add rule inet firewalld " +
				"filter_FORWARD reject",
			[]string{familyIP, familyIP6}, nil,
		},
		{
			"two tables", func(w world) {
				w.install(`table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; } }
					table inet fw { chain f { type filter hook forward priority 5; policy drop; } }`)
			}, "flush table inet fw", []string{familyIP, familyIP6}, []string{"iptables-nft"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.mustReach(familyIP, familyIP6)
			a := &Accepter{}
			w.mustEnsure(a, false, networks...)
			tt.install(w)
			before := w.ruleset()
			w.mustNotReach(tt.blocked...)

			w.mustEnsure(a, true, networks...)
			accepted := w.ruleset()
			w.mustReach(familyIP, familyIP6)
			if got := w.try(patient); got != (Result{Passed, Passed}) {
				t.Errorf("trial: %v", got)
			}
			w.mustEnsure(a, false, networks...)
			if diff := cmp.Diff(accepted, w.ruleset()); diff != "" {
				t.Errorf("a second Ensure changed, -first +second:\n%s", diff)
			}
			for _, program := range tt.readable {
				if got := w.run(program, "-S"); strings.Count(got, comment) != 2 {
					t.Errorf("%s -S:\n%s", program, got)
				}
			}

			for command := range strings.SplitSeq(tt.flush, "; ") {
				w.node.Nft(strings.Fields(command)...)
			}
			w.mustNotReach(tt.blocked...)
			w.mustEnsure(a, true, networks...)
			w.mustReach(familyIP, familyIP6)

			w.mustEnsure(a, true, netip.MustParsePrefix("198.51.100.0/24"),
				netip.MustParsePrefix("2001:db8:1::/64"))
			w.mustNotReach(tt.blocked...)
			w.mustEnsure(a, true, networks...)
			w.mustReach(familyIP, familyIP6)

			w.node.Nft("flush", "ruleset")
			w.mustEnsure(a, false, networks...)
			tt.install(w)
			w.mustEnsure(a, true, networks...)
			w.mustRemove(a)
			if diff := cmp.Diff(before, w.ruleset()); diff != "" {
				t.Errorf("after Remove, -before +after:\n%s", diff)
			}
			w.mustNotReach(tt.blocked...)
		})
	}
}

// What was changed in a rule of ours is put right, and rules of others that look alike stay.
func TestAccepterRepairsItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.install(`table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop;
		ip saddr 10.244.0.0/15 accept comment "sluice: pod networks"
		ip saddr 192.0.2.1 accept comment "sluice: pod network" } }`)
	a := &Accepter{}
	w.mustEnsure(a, true, networks...)
	want := `table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		ip saddr 10.244.0.0/15 accept comment "sluice: pod network"
		ip daddr 10.244.0.0/15 accept comment "sluice: pod network"
		ip saddr 10.244.0.0/15 accept comment "sluice: pod networks"
	}
}
`
	if diff := cmp.Diff(want, w.ruleset()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// What others put in front goes first.
	w.node.Nft("insert", "rule", "ip", "filter", "FORWARD", "ip", "saddr", "10.245.1.1", "drop")
	w.mustEnsure(a, false, networks...)
	w.mustNotReach(familyIP)
}

// Each side alone, of each length, in each kind of table.
func TestAcceptRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const chain = "{ chain f { type filter hook forward priority 0; policy drop; } }"
	w.install("table ip fw " + chain + "table ip6 fw " + chain + "table inet fw " + chain)
	before := w.ruleset()
	var some []netip.Prefix
	for _, s := range []string{"10.244.3.4/21", "192.0.2.7/32", "fd00:10:244:ff00::/59",
		"2001:db8::7/128"} {
		some = append(some, netip.MustParsePrefix(s))
	}
	w.mustEnsure(&Accepter{}, true, some...)
	rules := func(family string, networks ...string) string {
		var b strings.Builder
		for _, n := range networks {
			for _, side := range []string{"saddr", "daddr"} {
				b.WriteString("\t\t" + family + " " + side + " " + n +
					` accept comment "sluice: pod network"` + "\n")
			}
		}
		return b.String()
	}
	rules4, rules6 := rules("ip", "10.244.0.0/21", "192.0.2.7"),
		rules("ip6", "fd00:10:244:ff00::/59", "2001:db8::7")
	head := "policy drop;\n"
	tables := strings.SplitAfter(before, head)
	if len(tables) != 4 {
		t.Fatalf("not three tables:\n%s", before)
	}
	want := tables[0] + rules4 + tables[1] + rules6 + tables[2] + rules4 + rules6 + tables[3]
	if diff := cmp.Diff(want, w.ruleset()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	w.mustEnsure(&Accepter{}, false, some...)
}

// Chains that block no pod, and that others have for their reasons, stay as they are.
func TestAccepterLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.install(`table ip kube-proxy { chain filter-forward { type filter hook forward priority -110; ip daddr 192.0.2.1 reject; } }
		table ip filter { chain FORWARD { type filter hook forward priority 0; } chain DOCKER-USER { drop; } }
		table inet sluice { chain forward { type filter hook forward priority 0; policy drop; } }
		table bridge filter { chain FORWARD { type filter hook forward priority 0; policy drop; } }`)
	before := w.ruleset()
	w.mustEnsure(&Accepter{}, false, networks...)
	if diff := cmp.Diff(before, w.ruleset()); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
	for _, n := range []netip.Prefix{{}, netip.MustParsePrefix("0.0.0.0/0"),
		netip.MustParsePrefix("::/0")} {
		if _, err := w.ensure(&Accepter{}, n); err == nil {
			t.Errorf("%s was taken for a pod network", n)
		}
	}
}

// Rules of ours go from where they have become useless.
func TestAccepterLeavesUselessPlaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.installDocker("iptables-nft")
	a := &Accepter{}
	w.mustEnsure(a, true, networks...)
	w.run("iptables-nft", "-D", "FORWARD", "-j", dockerUser)
	w.mustNotReach(familyIP)
	w.mustEnsure(a, true, networks...)
	w.mustReach(familyIP)
	if got := w.run("iptables-nft", "-S"); !strings.Contains(got,
		strings.ReplaceAll(ourRules4, "CHAIN", Forward.legacy)) ||
		strings.Count(got, comment) != 2 {
		t.Errorf("DOCKER-USER unreached:\n%s", got)
	}
	w.node.Nft("add", "table", "ip", "filter", "{ flags dormant; }")
	w.mustReach(familyIP)
	w.mustEnsure(a, true, networks...)
	if got := w.ruleset(); !strings.Contains(got, "dormant") || strings.Contains(got, comment) {
		t.Errorf("dormant:\n%s", got)
	}
	w.mustEnsure(a, false, networks...)
}

func TestAccepterMeetsAnOwnedTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.install(
		`table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; } }`)
	w.own(`add table inet firewalld { flags owner; }
add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }
add rule inet firewalld filter_FORWARD reject
`)
	changed, err := w.ensure(&Accepter{}, networks...)
	if !errors.Is(err, errOwned) ||
		!strings.Contains(err.Error(), "table inet firewalld, chain filter_FORWARD") {
		t.Errorf("error %v", err)
	}
	rules := w.node.Nft("list", "table", "ip", "filter")
	if !changed || strings.Count(rules, comment) != 2 {
		t.Errorf("the other table, changed %v:\n%s", changed, rules)
	}
	w.mustNotReach(familyIP, familyIP6)
}

// own has a process that lives as long as the test make tables, and returns when they are there.
func (w world) own(commands string) {
	w.t.Helper()
	cmd := exec.Command("nft", "-i")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.node.Do(cmd.Start); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			w.t.Logf("nft -i: %v", err)
		}
	})
	if _, err := io.WriteString(stdin, commands); err != nil {
		w.t.Fatal(err)
	}
	w.await(func() bool { return strings.Contains(w.ruleset(), "reject") })
}

func (w world) await(done func() bool) {
	w.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(stretch.By(time.Minute)); !done(); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatal("it takes too long")
		}
	}
}

func TestEnsureKeepsItsDeadline(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	err := w.node.Do(func() error {
		_, err := (&Accepter{}).Ensure(ctx, networks)
		return err
	})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestOfFamily(t *testing.T) {
	t.Parallel()
	unmasked := append(slices.Clone(networks), netip.MustParsePrefix("10.1.2.3/8"))
	for family, want := range map[string][]netip.Prefix{
		familyIP:   {network4, netip.MustParsePrefix("10.0.0.0/8")},
		familyIP6:  {network6},
		familyINet: {network4, network6, netip.MustParsePrefix("10.0.0.0/8")},
	} {
		if got := ofFamily(unmasked, family); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", family, got, want)
		}
	}
}

// An agent asks again and again, on a node whose own table has thousands of chains.
func BenchmarkEnsureNothingToDo(b *testing.B) {
	for _, chains := range []int{0, 5000} {
		b.Run(fmt.Sprintf("%d-chains", chains), func(b *testing.B) {
			node := testnet.NewNode(b)
			var own strings.Builder
			own.WriteString("table ip filter {\nchain FORWARD {\ntype filter hook forward " +
				"priority 0; policy drop;\n}\n}\ntable inet sluice {\n")
			for i := range chains {
				fmt.Fprintf(&own, "chain policy/%d {\n}\n", i)
			}
			node.NftInput(own.String() + "}\n")
			ensure := func() (changed bool, err error) {
				err = node.Do(func() error {
					changed, err = (&Accepter{}).Ensure(b.Context(), networks)
					return err
				})
				return changed, err
			}
			if changed, err := ensure(); !changed || err != nil {
				b.Fatal(changed, err)
			}
			for b.Loop() {
				if changed, err := ensure(); changed || err != nil {
					b.Fatal(changed, err)
				}
			}
		})
	}
}
