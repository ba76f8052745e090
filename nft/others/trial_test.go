package others

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/test/stretch"
	"github.com/sluice-net/sluice/test/testnet"
)

// The kernel is sometimes slow where many tests run; where packets are blocked the tests wait less.
var (
	patient = TrialOptions{IPv4: path4, IPv6: path6, timeout: stretch.By(5 * time.Second)}
	brief   = TrialOptions{IPv4: path4, IPv6: path6, timeout: 300 * time.Millisecond}
)

func TestTrial(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		ruleset string
		want    Result
	}{
		{"Docker's policy",
			`table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; iifname "docker0" accept; } }`,
			Result{Blocked, Passed}},
		{"a rejecting last rule",
			`table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept;
			ct state established,related accept
			reject with icmpx admin-prohibited } }`,
			Result{Blocked, Blocked}},
		{"a rejecting chain", `table ip6 filter {
			chain ufw6-reject-forward { reject with icmpv6 port-unreachable; }
			chain FORWARD { type filter hook forward priority 0; policy accept; jump ufw6-reject-forward; } }`,
			Result{Passed, Blocked}},
		{"a policy that a rule precedes",
			`table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop;
			ip saddr 10.244.0.0/15 accept; } }`,
			Result{Passed, Passed}},
		{"invalid packets, broken checksums, foreign sources", `table inet strict {
			chain prerouting { type filter hook prerouting priority raw; fib saddr . iif oif missing drop; }
			chain forward { type filter hook forward priority 0; ct state invalid drop; } }`,
			Result{Passed, Passed}},
		{"a masquerade",
			`table inet nat { chain post { type nat hook postrouting priority 100; masquerade; } }`,
			Result{Passed, Passed}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := world{t: t, node: testnet.NewNode(t)}
			w.node.AddAddr(netip.MustParseAddr("192.0.2.1"))
			w.node.AddAddr(netip.MustParseAddr("2001:db8::1"))
			if got := w.try(patient); got != (Result{Passed, Passed}) {
				t.Fatalf("control: %v", got)
			}
			w.install(tt.ruleset)
			o := brief
			if tt.want == (Result{Passed, Passed}) {
				o = patient
			}
			if got := w.try(o); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			w.node.Nft("flush", "ruleset")
			if got := w.try(patient); got != (Result{Passed, Passed}) {
				t.Errorf("without the rules: %v", got)
			}
		})
	}
}

func TestTrialMeetsLegacyPolicies(t *testing.T) {
	t.Parallel()
	w := world{t: t, node: testnet.NewNode(t)}
	for _, tt := range []struct {
		program string
		want    Result
	}{
		{"iptables-legacy", Result{Blocked, Passed}},
		{"ip6tables-legacy", Result{Passed, Blocked}},
	} {
		w.run(tt.program, "-P", "FORWARD", "DROP")
		if got := w.try(brief); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.program, got, tt.want)
		}
		w.run(tt.program, "-P", "FORWARD", "ACCEPT")
		if got := w.try(patient); got != (Result{Passed, Passed}) {
			t.Errorf("after %s: got %v", tt.program, got)
		}
	}
}

// setSysctl writes a value under /proc/sys/net of the node.
func (w world) setSysctl(key, value string) {
	w.t.Helper()
	err := w.node.Do(func() error {
		return os.WriteFile(filepath.Join(defaultSysctlDir, key), []byte(value), 0o600)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestTrialUnderSysctls(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		set  map[string]string
		want Result
	}{
		{"no forwarding", map[string]string{"ipv4/ip_forward": "0",
			"ipv6/conf/all/forwarding": "0"}, Result{ForwardingOff, ForwardingOff}},
		{"forwarding of one family", map[string]string{"ipv4/ip_forward": "0"},
			Result{ForwardingOff, Passed}},
		{
			"strict reverse path filter",
			map[string]string{"ipv4/conf/all/rp_filter": "1", "ipv4/conf/default/rp_filter": "1"},
			Result{Passed, Passed},
		},
		{"no forwarding on new links",
			map[string]string{"ipv4/conf/default/forwarding": "0",
				"ipv6/conf/default/forwarding": "0"}, Result{Passed, Passed}},
		{"no IPv6 on new links", map[string]string{"ipv6/conf/default/disable_ipv6": "1"},
			Result{Passed, Passed}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := world{t: t, node: testnet.NewNode(t)}
			for key, value := range tt.set {
				w.setSysctl(key, value)
			}
			if got := w.try(patient); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// state is what a trial could leave behind.
func (w world) state() string {
	w.t.Helper()
	return w.run("ip", "-o", "link", "show") + w.run("ip", "route", "show", "table", "all") +
		w.run("ip", "-6", "route", "show", "table", "all")
}

func TestTrialLeavesNothing(t *testing.T) {
	t.Parallel()
	w := world{t: t, node: testnet.NewNode(t)}
	before := w.state()
	w.try(patient)
	if after := w.state(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}

	// Nor does it choke on what one that was killed left.
	var l *links
	err := w.node.Do(func() (err error) {
		l, err = makeLinks(defaultSysctlDir, []*trial{{path: path4}, {path: path6}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	l.nl.Close()
	if left := w.state(); !strings.Contains(left, nearIn) || !strings.Contains(left, "proto 85") {
		t.Fatalf("no remains:\n%s", left)
	}
	if got := w.try(patient); got != (Result{Passed, Passed}) {
		t.Errorf("after a killed trial: %v", got)
	}
	if after := w.state(); after != before {
		t.Errorf("before:\n%s\nafter a killed trial and another:\n%s", before, after)
	}
}

// What has left by one pair must not come back from its far end, and rejections not from the
// other's.
func TestTrialForwardsOnce(t *testing.T) {
	t.Parallel()
	w := world{t: t, node: testnet.NewNode(t)}
	w.install(`table inet watch {
		counter in {}
		counter back {}
		chain prerouting { type filter hook prerouting priority raw
			iifname "slprobe0" counter name in
			icmpv6 type mld2-listener-report accept # every link has them, they go no further
			iifname != "slprobe0" counter name back }
		chain forward { type filter hook forward priority 0; iifname "slprobe0" accept; reject; } }`)
	if got := w.try(patient); got != (Result{Passed, Passed}) {
		t.Fatalf("control: %v", got)
	}
	w.install(`insert rule inet watch forward reject`)
	if got := w.try(brief); got != (Result{Blocked, Blocked}) {
		t.Fatalf("with a reject: %v", got)
	}
	in := w.node.Nft("list", "counter", "inet", "watch", "in")
	if strings.Contains(in, "packets 0 ") {
		t.Errorf("control: nothing was counted: %s", in)
	}
	back := w.node.Nft("list", "counter", "inet", "watch", "back")
	if !strings.Contains(back, "packets 0 ") {
		t.Errorf("packets came back: %s", back)
	}
}

func TestTrialErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	own := netip.MustParseAddr("192.0.2.1")
	w.node.AddAddr(own)
	elsewhere := netip.MustParseAddr("fd00:10:244::9")
	w.run("ip", "route", "add", elsewhere.String(), "dev", "lo", "metric", "7")
	before := w.state()
	inUse := Path{Source: path4.Source, Destination: w.b.Addr4()}
	inUse6 := Path{Source: w.b.Addr6(), Destination: path6.Destination}
	for name, o := range map[string]TrialOptions{
		"no addresses":       {},
		"half a path":        {IPv4: Path{Source: path4.Source}},
		"the wrong family":   {IPv4: path6},
		"one address":        {IPv6: Path{path6.Source, path6.Source}},
		"a pod's address":    {IPv4: inUse},
		"a pod's address, 6": {IPv4: path4, IPv6: inUse6},
		"the node's address": {IPv4: Path{path4.Source, own}},
		"a routed address":   {IPv6: Path{elsewhere, path6.Destination}},
	} {
		err := w.node.Do(func() error {
			r, err := TryForwarding(t.Context(), o)
			if r != (Result{}) {
				t.Errorf("%s: result %v", name, r)
			}
			return err
		})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	err := w.node.Do(func() error {
		_, err := TryForwarding(cancelled, patient)
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if after := w.state(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	w.mustReach(familyIP, familyIP6)
}

func BenchmarkTrial(b *testing.B) {
	node := testnet.NewNode(b)
	for b.Loop() {
		err := node.Do(func() error {
			r, err := TryForwarding(b.Context(), patient)
			if r != (Result{Passed, Passed}) {
				b.Error(r)
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
