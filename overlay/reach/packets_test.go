package reach

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-net/sluice/overlay"
)

// TestFirewallsSilence: a drop of the tunnel's packets on one node, by any backend, makes it silent
// to others and others silent to it; no other pair of nodes is affected; and once the port is
// accepted all answer.
func TestFirewallsSilence(t *testing.T) {
	t.Parallel()
	type command func(m *machine)
	nft := func(ruleset string) command { return func(m *machine) { m.nft(ruleset) } }
	run := func(line string) command { return func(m *machine) { m.runf("%s", line) } }
	const established = "ct state established,related accept; meta l4proto ipv6-icmp accept; "
	for _, tt := range []struct {
		name         string
		config       overlay.Config
		underlay     overlay.Family
		drop, accept command
	}{
		{
			"a policy of nftables", dualStack, overlay.IPv4,
			nft("table inet fw { chain in { type filter hook input priority 0; policy drop; " +
				established + "} }"),
			run("nft add rule inet fw in udp dport 8472 accept"),
		},
		{
			"a last rule of nftables, and tunnels over IPv6", dualStack, overlay.IPv6,
			nft("table ip6 fw { chain in { type filter hook input priority 10; " + established +
				"reject with icmpv6 admin-prohibited; } }"),
			run("nft insert rule ip6 fw in udp dport 8472 accept"),
		},
		{
			"legacy iptables, and pods with IPv6 alone", onlyIPv6, overlay.IPv4,
			run("iptables-legacy -P INPUT DROP"),
			run("iptables-legacy -A INPUT -p udp --dport 8472 -j ACCEPT"),
		},
		{
			"legacy ip6tables, and IPv6 alone", onlyIPv6, overlay.IPv6,
			func(m *machine) {
				m.runf("ip6tables-legacy -A INPUT -p ipv6-icmp -j ACCEPT")
				m.runf("ip6tables-legacy -P INPUT DROP")
			},
			run("ip6tables-legacy -A INPUT -p udp --dport 8472 -j ACCEPT"),
		},
		{
			"what goes out", dualStack, overlay.IPv4,
			nft("table ip fw { chain out { type filter hook output priority 0; udp dport 8472 " +
				"drop; } }"), run("nft delete table ip fw"),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := newMachines(t, 3, tt.config, tt.underlay)
			closed := nodes[1]
			for _, hears := range nodes {
				for _, other := range nodes {
					if hears != other {
						hears.mustHear(other.peer(tt.config), "control")
					}
				}
			}
			tt.drop(closed)
			for _, open := range []*machine{nodes[0], nodes[2]} {
				open.mustNotHear(closed.peer(tt.config), "blocked")
				closed.mustNotHear(open.peer(tt.config), "blocked")
			}
			nodes[0].mustHear(nodes[2].peer(tt.config), "another is blocked")
			tt.accept(closed)
			nodes[0].mustHear(closed.peer(tt.config), "accepted")
			closed.mustHear(nodes[0].peer(tt.config), "accepted")
		})
	}
}

// TestSysctlsDontSilence: what hosts set about ARP and the way back doesn't make a working tunnel
// look silent, save arp_ignore 8.
func TestSysctlsDontSilence(t *testing.T) {
	t.Parallel()
	nodes := newMachines(t, 2, dualStack, overlay.IPv4)
	asking, asked := nodes[0], nodes[1]
	for _, set := range []struct{ key, value string }{
		{"arp_ignore", "1"},
		{"arp_ignore", "2"},
		{"arp_ignore", "3"},
		{"arp_filter", "1"},
		{"arp_announce", "2"},
		{"drop_gratuitous_arp", "1"},
		{"rp_filter", "1"},
		{"forwarding", "0"},
	} {
		for _, link := range []string{"all", "sluice.1"} {
			asked.sysctl("ipv4/conf/"+link+"/"+set.key, set.value)
		}
		asking.mustHear(asked.peer(dualStack), set.key+"="+set.value)
	}
	asked.runf("ip route del 10.244.1.0/24")
	asking.mustHear(asked.peer(dualStack), "no way back")
	asked.sysctl("ipv4/conf/all/arp_ignore", "8")
	asking.mustNotHear(asked.peer(dualStack), "arp_ignore=8")
}

// TestProber: what a Prober reports of a tunnel that works, doesn't, and does again, also over a
// new device.
func TestProber(t *testing.T) {
	t.Parallel()
	nodes := newMachines(t, 3, dualStack, overlay.IPv4)
	own := nodes[0]
	reports := make(chan Report, 1000)
	p := New(Options{Own: own.node.Name, NetNS: own.netns, Interval: time.Second / 3,
		OnReport: func(r Report) { reports <- r }})
	p.rotation.gap = time.Second / 10
	own.background(p.Run)
	states := func(r Report) (out []State) {
		for _, s := range r.Peers {
			out = append(out, s.State)
		}
		return out
	}
	var last Report
	await := func(what string, holds func(Report) bool) {
		t.Helper()
		for late := time.After(patience); ; {
			select {
			case last = <-reports:
				if holds(last) {
					return
				}
			case <-late:
				t.Fatalf("no %s: the last report was %+v", what, last)
			}
		}
	}
	awaitStates := func(want ...State) {
		t.Helper()
		await("such states", func(r Report) bool {
			return slices.Equal(states(r), want) && r.Err == nil
		})
	}
	await("report without peers", func(r Report) bool { return r.Err == nil && len(r.Peers) == 0 })
	p.Set("sluice.1", []Peer{nodes[1].peer(dualStack), nodes[2].peer(dualStack)})
	awaitStates(Answering, Answering)
	if last.Answered < 2 || last.Unsent > 0 || last.Heard.IsZero() {
		t.Errorf("after two answers: %+v", last)
	}
	nodes[1].nft("table inet fw { chain in { type filter hook input priority 0; policy drop; } }")
	awaitStates(Silent, Answering)
	own.nft("table inet fw { chain in { type filter hook input priority 0; policy drop; } }")
	awaitStates(Silent, Silent)
	quiet := last
	if quiet.Unanswered < 6 {
		t.Errorf("after six unanswered questions: %+v", quiet)
	}
	if await("more questions", func(r Report) bool {
		return r.Unanswered > quiet.Unanswered+2
	}); last.Heard != quiet.Heard {
		t.Errorf("something was heard at %s through a firewall, after %s", last.Heard, quiet.Heard)
	}
	own.runf("nft delete table inet fw")
	awaitStates(Silent, Answering)
	nodes[1].runf("nft delete table inet fw")
	awaitStates(Answering, Answering)

	p.Set("sluice.2", []Peer{nodes[1].peer(dualStack), nodes[2].peer(dualStack)})
	await("error", func(r Report) bool {
		return r.Err != nil && slices.Equal(states(r), []State{Untried, Untried})
	})
	p.Set("sluice.1", []Peer{nodes[1].peer(dualStack)})
	awaitStates(Answering)
	answered := last.Answered
	own.runf("ip link del sluice.1") // it is made anew
	await("answers over a new device", func(r Report) bool {
		return r.Answered > answered+2 && states(r)[0] == Answering
	})
}
