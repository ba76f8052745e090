package enforcer

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
)

func oneAddr(i int) cluster.Ends {
	return cluster.Ends{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}): cluster.AsSource}
}

// longestDirect and longestOther are what looks of a test take at most: the latter far more than
// there are seconds to wait.
const longestDirect, longestOther = 40 * time.Millisecond, 2 * time.Second

// agendaTest plays a Cutter with an agenda.
type agendaTest struct {
	*rapid.T
	a               agenda
	now, quiet      time.Time
	waiting, second map[netip.Addr]time.Time
	direct          map[netip.Addr]bool // waiting, for what the kernel finds by address
	looks           []timedLook
}

type timedLook struct {
	at, end time.Time
	found   kind // as it was found
	kind    kind // as it was paid for
	rest    time.Duration
}

func (t *agendaTest) add(ends cluster.Ends) {
	t.a.add(ends)
	for addr := range ends {
		t.waiting[addr] = t.now
		t.direct[addr] = t.a.queues[direct].fresh[addr] != 0
	}
}

// look looks if there is something to look at, or says how long that will be.
func (t *agendaTest) look() (wait time.Duration) {
	l, wait := t.a.next(t.now)
	if len(l.ends) == 0 {
		return wait
	}
	if l.kind == direct && len(queriesFor(l.ends)) > mostDirect {
		t.Fatalf("a direct look at %v", l.ends)
	}
	crowd := cluster.Ends{}
	for addr, role := range l.ends {
		if l.kind != crowds && rapid.IntRange(0, 5).Draw(t.T, "crowd") == 0 {
			crowd[addr] = role // isn't looked at yet
			t.direct[addr] = false
			continue
		}
		if due, ok := t.second[addr]; ok && !t.now.Before(due) {
			delete(t.second, addr)
		}
		came, ok := t.waiting[addr]
		if !ok {
			continue
		}
		const promise = time.Second
		d := t.now.Sub(came)
		if t.direct[addr] && d > promise+longestOther ||
			d > 0 && came.Sub(t.quiet) > restAfterLook*longestOther*5 {
			t.Fatalf("looked at %s after %s", addr, d)
		}
		t.second[addr] = t.now.Add(lookAgain)
		delete(t.waiting, addr)
	}
	found, longest := l.kind, longestOther
	if l.kind == direct {
		longest = longestDirect
	}
	took := time.Duration(rapid.Int64Range(0, int64(longest)).Draw(t.T, "work"))
	began := t.now
	t.now = t.now.Add(took)
	if len(crowd) > 0 {
		t.a.crowd(t.now, crowd)
		l.kind = crowds
	}
	t.a.looked(t.now, l, took)
	t.looks = append(t.looks, timedLook{began, t.now, found, l.kind, restAfter(took)})
	t.quiet = t.now
	return 0
}

func (t *agendaTest) run(until time.Time) {
	for {
		wait := t.look()
		if wait == never || t.now.Add(wait).After(until) {
			t.now = later(t.now, until)
			return
		}
		t.now = t.now.Add(wait)
	}
}

// TestAgenda: all that comes gets a look, and a second one a second later or more. What the kernel
// finds by an address is looked at by a second after the look that is under way at most, however
// long other looks have to rest. Rest is in proportion to what looks of its kind took, but for what
// was saved up.
func TestAgenda(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		start := time.Unix(1e9, 0)
		t := &agendaTest{T: rt, now: start, quiet: start, waiting: map[netip.Addr]time.Time{},
			second: map[netip.Addr]time.Time{}, direct: map[netip.Addr]bool{}}
		t.a.filtersIPv6 = rapid.Bool().Draw(rt, "filters IPv6")
		for i := range rapid.IntRange(1, 30).Draw(rt, "events") {
			t.run(
				t.now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(rt, "ms")) * time.Millisecond))
			ends := oneAddr(i)
			if rapid.Bool().Draw(rt, "IPv6") {
				ends = cluster.Ends{
					netip.AddrFrom16([16]byte{0xfd, 15: byte(i)}): cluster.AsDestination}
			}
			t.add(ends)
		}
		t.run(t.now.Add(time.Hour))
		if len(t.waiting)+len(t.second) > 0 {
			t.Fatalf("never looked at %v, nor again at %v", t.waiting, t.second)
		}
		for i := range t.looks {
			var due [kinds]time.Duration
			for j := i + 1; j < len(t.looks); j++ {
				last := t.looks[j-1]
				due[last.kind] += last.rest
				owed := due[t.looks[j].found]
				if d := t.looks[j].at.Sub(t.looks[i].end); d < owed-restSaved {
					t.Fatalf("%d looks within %s, which have to rest for %s", j-i+1, d, owed)
				}
			}
		}
	})
}

// TestLooksThroughEverythingRest: a look of a second rests for ten, and one that the kernel finds
// by address doesn't wait for it.
func TestLooksThroughEverythingRest(t *testing.T) {
	t.Parallel()
	var a agenda
	now := time.Unix(1e9, 0)
	everything := cluster.Ends{}
	for i := range 100 {
		everything.Add(oneAddr(i))
	}
	a.add(everything)
	l, _ := a.next(now)
	if len(l.ends) != len(everything) || l.kind == direct {
		t.Fatalf("the first look: %+v", l)
	}
	a.looked(now, l, time.Second)
	a.add(everything)
	if l, wait := a.next(now); len(l.ends) > 0 || wait != restAfterLook*time.Second-restSaved {
		t.Errorf("after a look of a second: %d ends, wait %s", len(l.ends), wait)
	}
	a.add(oneAddr(200))
	l, _ = a.next(now)
	if len(l.ends) != 1 || l.kind != direct {
		t.Errorf("one address: %+v", l)
	}
}

// TestDirectLooksAreByWhatTheKernelFilters: an IPv6 address is looked for among all connections,
// unless the kernel finds it.
func TestDirectLooksAreByWhatTheKernelFilters(t *testing.T) {
	t.Parallel()
	ends := cluster.Ends{netip.MustParseAddr("10.0.0.1"): cluster.AsSource,
		netip.MustParseAddr("fd00::1"): cluster.AsSource}
	for filters, want := range map[bool]int{false: 1, true: 2} {
		a := agenda{filtersIPv6: filters}
		a.add(ends)
		if l, _ := a.next(time.Unix(1e9, 0)); l.kind != direct || len(l.ends) != want {
			t.Errorf("the kernel filters IPv6 %t: the first look is at %v, of kind %d, want %d",
				filters, l.ends, l.kind, want)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestLooksThatFailAreTriedAgain: and not as fast as they fail.
func TestLooksThatFailAreTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		e := onTable(nil, cluster.Options{}, ruleset.Config{}, logr.Discard())
		c := NewCutter(e, CutterOptions{Log: logr.Discard(), do: func(func() error) error {
			tries++
			return errors.New("no table")
		}})
		c.agenda.add(oneAddr(1))
		const long = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), long)
		defer cancel()
		if err := c.Run(ctx); err != nil {
			t.Fatal(err)
		}
		most := int((long + restSaved) / (restAfterLook * failedLook))
		if tries < most-1 || tries > most+1 {
			t.Errorf("%d tries in %s, want %d", tries, long, most)
		}
	})
}
