package controllers

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/overlay/reach"
)

// atSecond is so many seconds after the start of a test's time.
func atSecond(second int) time.Time { return time.Unix(int64(1000+second), 0) }

// peersAre lists peers a, b, ... in states that began at the same second.
func peersAre(since int, states ...reach.State) (peers []reach.PeerState) {
	for i, s := range states {
		peers = append(peers,
			reach.PeerState{Name: string(rune('a' + i)), State: s, Since: atSecond(since)})
	}
	return peers
}

func allReady(since int, names string) map[string]time.Time {
	ready := map[string]time.Time{}
	for _, name := range names {
		ready[string(name)] = atSecond(since)
	}
	return ready
}

// TestJudgeTunnel at second 100, with a minute's grace.
func TestJudgeTunnel(t *testing.T) {
	t.Parallel()
	const yes, no, untried = reach.Answering, reach.Silent, reach.Untried
	for _, c := range []struct {
		name          string
		peers         []reach.PeerState
		ready         map[string]time.Time
		answer, heard int
		counts        tunnelCounts
		trouble       tunnelTrouble
		silent        string
	}{
		{"all answer", peersAre(0, yes, yes), allReady(0, "ab"), 90, 90, tunnelCounts{answering: 2},
			noTrouble, ""},
		{"nobody was asked", peersAre(0, untried), allReady(0, "a"), -900, -900,
			tunnelCounts{untried: 1}, noTrouble, ""},
		{"one is silent", peersAre(40, yes, no), allReady(0, "ab"), 90, 90,
			tunnelCounts{answering: 1, silent: 1}, someSilent, "b"},
		{"... not for long", peersAre(41, yes, no), allReady(0, "ab"), 90, 90,
			tunnelCounts{answering: 1, silent: 1}, noTrouble, ""},
		{"... and hasn't been ready for long", peersAre(0, yes, no), allReady(41, "ab"), 90, 90,
			tunnelCounts{answering: 1, silent: 1}, noTrouble, ""},
		{"... and isn't ready", peersAre(0, yes, no), allReady(0, "a"), 90, 90,
			tunnelCounts{answering: 1, notReady: 1}, noTrouble, ""},
		{"nobody answers, others' packets come", peersAre(0, no, no), allReady(0, "ab"), 40, 41,
			tunnelCounts{silent: 2}, allSilent, "ab"},
		{"nobody answers, nothing comes", peersAre(0, no, no), allReady(0, "ab"), 40, 40,
			tunnelCounts{silent: 2}, nothingIn, "ab"},
		{"nobody has ever answered", peersAre(0, no), allReady(0, "a"), -1000, -1000,
			tunnelCounts{silent: 1}, nothingIn, "a"},
		{"nobody answers, one of them for long",
			append(peersAre(0, no), reach.PeerState{Name: "b", State: no, Since: atSecond(99)}),
			allReady(0, "ab"), 30, 30, tunnelCounts{silent: 2}, nothingIn, "ab"},
		{"the last answers are old, the rest isn't asked yet", peersAre(20, no, yes, untried),
			allReady(0, "abc"), 30, 30, tunnelCounts{answering: 1, silent: 1, untried: 1},
			nothingIn, "a"},
	} {
		r := reach.Report{Peers: c.peers, Answer: atSecond(c.answer), Heard: atSecond(c.heard)}
		n, v := judgeTunnel(r, c.ready, atSecond(100), time.Minute)
		if n != c.counts || v.trouble != c.trouble || strings.Join(v.silent, "") != c.silent ||
			v.asked != n.answering+n.silent {
			t.Errorf("%s: got %+v, %+v", c.name, n, v)
		}
	}
}

func TestTunnelNote(t *testing.T) {
	t.Parallel()
	place := tunnelPlace{port: 8472, link: "eth0"}
	in, out := place, place
	in.in, out.out = "nftables table inet fw, chain in (policy drop)",
		"legacy iptables table filter, chain OUTPUT (policy DROP)"
	for _, c := range []struct {
		verdict tunnelVerdict
		place   tunnelPlace
		want    string
	}{
		{tunnelVerdict{asked: 3}, place, ""},
		{
			tunnelVerdict{someSilent, []string{"a", "b", "c", "d", "e"}, 1499}, place,
			"5 of 1499 nodes don't answer through the tunnel (a, b, c and 2 more): see whether " +
				"they accept UDP port 8472.",
		},
		{
			tunnelVerdict{nothingIn, []string{"a", "b"}, 2}, in,
			"None of 2 nodes has answered through the tunnel for 1m0s (a, b), and nothing has " +
				"come in by it. What drops here unless a rule of it accepts: " +
				"nftables table inet fw, chain in (policy drop). Accept UDP port 8472 on eth0 " +
				"there.",
		},
		{
			tunnelVerdict{nothingIn, []string{"a"}, 1}, tunnelPlace{port: 4789},
			"None of 1 nodes has answered through the tunnel for 1m0s (a), and nothing has come " +
				"in by it. No chain on input drops here by its policy or " +
				"last rule: another rule may drop UDP port 4789, or the network between the nodes.",
		},
		{
			tunnelVerdict{allSilent, []string{"a"}, 1}, place,
			"None of 1 nodes has answered through the tunnel for 1m0s (a), although packets come " +
				"in by it: see whether they accept UDP port 8472.",
		},
		{
			tunnelVerdict{allSilent, []string{"a"}, 1}, out,
			"None of 1 nodes has answered through the tunnel for 1m0s (a), although packets come " +
				"in by it: see whether they accept UDP port 8472. " +
				"What drops here unless a rule of it accepts: legacy iptables table filter, " +
				"chain OUTPUT (policy DROP). Accept UDP port 8472 on eth0 there, going out.",
		},
	} {
		if got := c.verdict.note(c.place, time.Minute); got != c.want {
			t.Errorf("%v:\n got %s\nwant %s", c.verdict, got, c.want)
		}
	}
}

// TestFewReportASilentNode: of 1,500 nodes, three report one that is silent to all; each reports
// that all are silent to it.
func TestFewReportASilentNode(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 1500 {
		names = append(names, fmt.Sprintf("node%04d", i))
	}
	const silent = "node0700"
	reporters, alone := 0, 0
	for _, own := range names {
		if own == silent {
			continue
		}
		var r reach.Report
		for _, name := range names {
			if name != own && name != silent {
				r.Peers = append(r.Peers, reach.PeerState{Name: name, State: reach.Answering})
			}
		}
		r.Peers = append(r.Peers, reach.PeerState{Name: silent, State: reach.Silent})
		if reportsTunnel(own, tunnelVerdict{someSilent, []string{silent}, 1499}, r) {
			reporters++
		}
		if reportsTunnel(own, tunnelVerdict{nothingIn, names[:1], 1}, r) &&
			reportsTunnel(own, tunnelVerdict{allSilent, names[:1], 1}, r) {
			alone++
		}
		if len(r.Peers) != 1499 {
			t.Fatalf("%d peers", len(r.Peers))
		}
	}
	if reporters != reporterNodes || alone != 1499 {
		t.Errorf("%d nodes report a silent one, %d themselves", reporters, alone)
	}
}

// TestThroughTunnel: of each peer one address is asked for that the tunnel leads to, IPv4 first.
func TestThroughTunnel(t *testing.T) {
	t.Parallel()
	v4, v6 := []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")},
		[]netip.Prefix{netip.MustParsePrefix("fd00:10:244:2::/64")}
	both := slices.Concat(v4, v6)
	for _, c := range []struct {
		peer overlay.Peer
		want string // empty: no node is asked
	}{
		{overlay.Peer{PodCIDRs: both}, "10.244.2.0"},
		{overlay.Peer{PodCIDRs: slices.Concat(v6, v4)}, "10.244.2.0"},
		{overlay.Peer{PodCIDRs: v6}, "fd00:10:244:2::"},
		{overlay.Peer{PodCIDRs: both, Direct: v4}, "fd00:10:244:2::"},
		{overlay.Peer{PodCIDRs: both, Direct: both}, ""},
	} {
		c.peer.Name = "n"
		got := throughTunnel([]overlay.Peer{c.peer})
		switch {
		case c.want == "" && len(got) == 0:
		case len(got) != 1 || got[0].Addr.String() != c.want ||
			got[0].MAC != overlay.TunnelMAC("n") || got[0].Name != "n":
			t.Errorf("%v: got %v, want %s", c.peer, got, c.want)
		}
	}
}
