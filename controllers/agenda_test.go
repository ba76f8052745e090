package controllers

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/policy"
)

func oneAddr(i int) policy.Ends {
	return policy.Ends{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}): policy.AsSource}
}

// TestAgenda: whenever something comes, it is looked at by a second after the
// look that is under way at most, at once after a pause, and again a second
// after that or later; and the rests that looks have to be followed by are kept,
// but for those that were saved up.
func TestAgenda(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var a agenda
		start := time.Unix(1e9, 0)
		now, quiet := start, start
		waiting, second := map[netip.Addr]time.Time{}, map[netip.Addr]time.Time{}
		type look struct {
			at, end time.Time
			rest    time.Duration
		}
		var looks []look
		ask := func() (wait time.Duration) {
			ends, wait := a.next(now)
			if len(ends) == 0 {
				return wait
			}
			for addr := range ends {
				if due, ok := second[addr]; ok && !now.Before(due) {
					delete(second, addr)
				}
				if came, ok := waiting[addr]; ok {
					if d := now.Sub(came); d > longestRest || d > 0 && came.Sub(quiet) > restSaved+longestRest {
						t.Fatalf("looked at %s after %s", addr, d)
					}
					second[addr] = now.Add(lookAgain)
					delete(waiting, addr)
				}
			}
			took := time.Duration(rapid.IntRange(0, 200).Draw(t, "ms of work")) * time.Millisecond
			began := now
			now = now.Add(took)
			a.looked(now, took)
			looks = append(looks, look{began, now, restAfter(took)})
			quiet = now
			return 0
		}
		run := func(until time.Time) {
			for {
				wait := ask()
				if wait == never || now.Add(wait).After(until) {
					now = later(now, until)
					return
				}
				now = now.Add(wait)
			}
		}
		for i := range rapid.IntRange(1, 30).Draw(t, "events") {
			run(now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond))
			a.add(oneAddr(i))
			for addr := range oneAddr(i) {
				waiting[addr] = now
			}
		}
		run(now.Add(time.Minute))
		if len(waiting)+len(second) > 0 {
			t.Fatalf("never looked at %v, nor again at %v", waiting, second)
		}
		for i := range looks {
			due := time.Duration(0)
			for j := i + 1; j < len(looks); j++ {
				due += looks[j-1].rest
				if d := looks[j].at.Sub(looks[i].end); d < due-restSaved {
					t.Fatalf("%d looks within %s, which have to rest for %s", j-i+1, d, due)
				}
			}
		}
	})
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
		e := NewEnforcer(nil, policy.Options{}, RulesetConfig{}, logr.Discard())
		c := NewCutter(e, CutterOptions{Log: logr.Discard(), Do: func(func() error) error { tries++; return errors.New("no table") }})
		c.agenda.add(oneAddr(1))
		const long = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), long)
		defer cancel()
		if err := c.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if most := int((long + restSaved) / longestRest); tries < most-1 || tries > most+1 {
			t.Errorf("%d tries in %s, want %d", tries, long, most)
		}
	})
}
