package enforcer

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/conntrack"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/testnet"
)

// TestCrowdsKeepNobodyWaiting: while 30,000 connections of one pod are cut, that of another pod is,
// and in the end all are; both before it is known that they are so many, and later.
func TestCrowdsKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	w := newCutWorld(t, ruleset.Config{}, CutterOptions{}, nil)
	const many = 30_000
	var flows []testnet.Tracked
	web := w.Addr("dev/web", 4)
	for i := range many {
		flows = append(flows,
			testnet.Plain(unix.IPPROTO_TCP, fmt.Sprintf("%s:%d", web, 1024+i), "203.0.113.1:80"))
	}
	if err := w.Node.Do(func() error { return testnet.Track(flows...) }); err != nil {
		t.Fatal(err)
	}
	cut := func() int {
		return len(w.entries(func(e *conntrack.Entry) bool {
			return e.Orig.Src == web && e.Labels.Has(w.c.label)
		}))
	}
	for round := range 2 {
		other := w.open(unix.IPPROTO_TCP, "ops/probe", "prod/web", 4, uint16(7000+round),
			netip.AddrPort{})
		w.policies(map[string]string{"dev/all": denyAllEgress, "ops/all": denyAllEgress})
		w.eventually("the other connection to be cut", func() bool {
			crowd, others := 0, 0
			for _, e := range w.entries(func(e *conntrack.Entry) bool {
				return e.Labels.Has(w.c.label)
			}) {
				if e.Orig.Src == web {
					crowd++
				} else {
					others++
				}
			}
			if crowd == many && others == 0 {
				t.Fatalf("round %d: all of the crowd is cut, and the other connection isn't", round)
			}
			return others > 0
		})
		other.awaitCut()
		w.eventually("all of the crowd to be cut", func() bool { return cut() == many })
		w.policies(map[string]string{"dev/all": "", "ops/all": ""})
		w.eventually("the crowd to be given back", func() bool { return cut() == 0 })
	}
}

// TestCrowdsHaveTheirOwnPace: once an address is known to have a crowd, others neither wait for
// looks at it nor for their rest.
func TestCrowdsHaveTheirOwnPace(t *testing.T) {
	t.Parallel()
	var a agenda
	now := time.Unix(1e9, 0)
	busy, other := oneAddr(1), oneAddr(2)
	sixth := cluster.Ends{netip.MustParseAddr("fd00::1"): cluster.AsSource}
	expect := func(what string, wantKind kind, want cluster.Ends) look {
		t.Helper()
		l, _ := a.next(now)
		if len(l.ends) != len(want) || len(l.ends.Both(want)) != len(want) || l.kind != wantKind {
			t.Fatalf("%s: %+v, want one of kind %d at %v", what, l, wantKind, want)
		}
		return l
	}
	a.add(busy)
	l := expect("unknown", direct, busy)
	a.crowd(now, busy)
	l.kind = crowds
	a.looked(now, l, 10*time.Second)
	a.add(busy)
	a.add(other)
	a.add(sixth)
	expect("another", direct, other)
	expect("another of IPv6", all, sixth)
	if l, _ := a.next(now); len(l.ends) > 0 {
		t.Errorf("the crowd's rest isn't over: %+v", l)
	}
	now = now.Add(100*time.Second - restSaved)
	a.looked(now, expect("second look", direct, other), 0)
	a.looked(now, expect("second look of IPv6", all, sixth), 0)
	a.looked(now, expect("after its rest", crowds, busy), 0)
	now = now.Add(lookAgain)
	a.looked(now, expect("second look at the crowd", crowds, busy), 0)
	now = now.Add(time.Second)
	a.add(busy)
	expect("after a while", direct, busy)
}

func TestCrowdsOf(t *testing.T) {
	t.Parallel()
	busy, quiet, far := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"),
		netip.MustParseAddr("10.9.9.9")
	var entries []conntrack.Entry
	for i := range 2002 {
		e := conntrack.Entry{}
		e.Orig.Src, e.Reply.Src = busy, far
		if i == 0 {
			e.Orig.Src = quiet
		}
		entries = append(entries, e)
	}
	ends := cluster.Ends{busy: cluster.AsSource, quiet: cluster.AsSource | cluster.AsDestination}
	if got := crowdsOf(entries, ends); len(got) != 1 || got[busy] != cluster.AsSource {
		t.Errorf("got %v, want %s alone", got, busy)
	}
	if got := crowdsOf(entries[:2001], ends); len(got) > 0 {
		t.Errorf("got %v of one less", got)
	}
	ends[far] = cluster.AsSource
	if got := crowdsOf(entries, ends); got[far] != 0 {
		t.Errorf("%s counts as a source", far)
	}
	ends[far] = cluster.AsDestination
	if got := crowdsOf(entries, ends); got[far] != cluster.AsDestination {
		t.Errorf("got %v, want %s as well", got, far)
	}
}
