package controllers

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/policy"
)

func oneAddr(i int) policy.Ends {
	return policy.Ends{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}): policy.AsSource}
}

// TestAgenda: whenever something comes, it is looked at by a second later at
// most, at once after a pause, and again a second after that or later; and in
// no time are there more looks than seconds, and four.
func TestAgenda(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var a agenda
		start := time.Unix(1e9, 0)
		now, quiet := start, start
		waiting, second := map[netip.Addr]time.Time{}, map[netip.Addr]time.Time{}
		var looks []time.Time
		ask := func() (wait time.Duration) {
			addrs, wait := a.next(now)
			if len(addrs) == 0 {
				return wait
			}
			looks = append(looks, now)
			for addr := range addrs {
				if due, ok := second[addr]; ok && !now.Before(due) {
					delete(second, addr)
				}
				if came, ok := waiting[addr]; ok {
					if d := now.Sub(came); d > sweepEvery || d > 0 && came.Sub(quiet) > 2*sweepEvery {
						t.Fatalf("looked at %s after %s", addr, d)
					}
					second[addr] = now.Add(lookAgain)
					delete(waiting, addr)
				}
			}
			quiet = now
			return 0
		}
		run := func(until time.Time) {
			for {
				wait := ask()
				if wait == never || now.Add(wait).After(until) {
					now = until
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
			for j := range i {
				if d := looks[i].Sub(looks[j]); time.Duration(i-j+1-sweepsIn)*sweepEvery > d {
					t.Fatalf("%d looks within %s", i-j+1, d)
				}
			}
		}
	})
}
