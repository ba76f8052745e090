package controllers

import (
	"time"

	"github.com/sluice-net/sluice/policy"
)

// How often a node's connections are looked through. In the long run a look is followed by ten times as much rest as it took of a
// processor, a second at most; after a pause three seconds of rest can be saved up, so that a few changes in a row, each with its second
// look, needn't wait for each other.
const (
	restAfterLook = 10
	shortestRest  = 20 * time.Millisecond
	longestRest   = time.Second
	restSaved     = 3 * time.Second
	// lookAgain is when packets have left that were under way in a commit, and with them the last connections it hasn't judged.
	lookAgain = time.Second
)

// An agenda says whose connections are to be looked at, and when: as soon as the pace allows, and once more a while later. The zero
// value is ready. It has no clock: times are its caller's.
type agenda struct {
	fresh policy.Ends
	again []secondLook // the earliest first
	paid  time.Time    // looks so far have to be followed by rest until then
}

type secondLook struct {
	at   time.Time
	ends policy.Ends
}

// add puts ends of connections on the agenda.
func (a *agenda) add(ends policy.Ends) {
	if a.fresh == nil {
		a.fresh = policy.Ends{}
	}
	a.fresh.Add(ends)
}

// never is longer than anybody waits.
const never = time.Duration(1<<63 - 1)

// next returns the ends to look at now, and takes them off the agenda; or, if there are none, how long it will be until it is worth
// asking again.
func (a *agenda) next(now time.Time) (ends policy.Ends, wait time.Duration) {
	wait = never
	if len(a.again) > 0 {
		wait = a.again[0].at.Sub(now)
	}
	if len(a.fresh) > 0 {
		wait = 0
	}
	if pace := a.paid.Add(-restSaved).Sub(now); wait != never {
		wait = max(wait, pace)
	}
	if wait > 0 {
		return nil, wait
	}
	ends = policy.Ends{}
	ends.Add(a.fresh)
	for len(a.again) > 0 && !a.again[0].at.After(now) {
		ends.Add(a.again[0].ends)
		a.again = a.again[1:]
	}
	if len(a.fresh) > 0 {
		a.again = append(a.again, secondLook{now.Add(lookAgain), a.fresh})
		a.fresh = nil
	}
	return ends, 0
}

// looked says that a look has ended, and what processor time it took. Without that, looks follow each other without a rest.
func (a *agenda) looked(now time.Time, took time.Duration) {
	if a.paid.Before(now) {
		a.paid = now
	}
	a.paid = a.paid.Add(restAfter(took))
}

func restAfter(took time.Duration) time.Duration {
	return min(max(restAfterLook*took, shortestRest), longestRest)
}
