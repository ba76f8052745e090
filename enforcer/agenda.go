package enforcer

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-net/sluice/policy/cluster"
)

// How often a node's connections are looked through. In the long run a look is followed by ten
// times as much rest as it took of a processor, however long that is: what tenants do makes looks
// long. After a pause three seconds of rest can be saved up, so that a few changes in a row, each
// with its second look, needn't wait for each other.
const (
	restAfterLook = 10
	shortestRest  = 20 * time.Millisecond
	restSaved     = 3 * time.Second
	// failedLook is what a look counts for that failed, at least.
	failedLook = 100 * time.Millisecond
	// lookAgain is when packets have left that were under way in a commit, and with them the last
	// connections it hasn't judged.
	lookAgain = time.Second
	// mostDirect is how many listings the kernel makes for one look, each of what it finds by an
	// address.
	mostDirect = 8
	// crowdedFor is how long an address with a crowd of connections doesn't count as one by which
	// the kernel finds few.
	crowdedFor = time.Minute
)

// An agenda says whose connections are to be looked at, and when: as soon as the pace allows, and
// once more a while later. What the kernel finds by a few addresses has a pace of its own: it
// doesn't wait for the rest that is due to looks through all that there is, nor those for its. Nor
// does any of them wait for looks at ends with a crowd of connections, which one tenant can make.
// The zero value is ready. It has no clock: times are its caller's.
type agenda struct {
	queues  [kinds]queue
	crowded map[netip.Addr]time.Time // until when
}

// A kind of look, from the one that is over first to the one that takes longest.
type kind int

const (
	direct kind = iota // the kernel finds all of it by address
	all                // it is looked for among all connections
	crowds             // at ends with a crowd of connections
	kinds
)

// A queue is what waits for one kind of looks.
type queue struct {
	fresh cluster.Ends
	again []secondLook // the earliest first
	paid  time.Time    // looks so far have to be followed by rest until then
}

type secondLook struct {
	at   time.Time
	ends cluster.Ends
}

// A look is what to look at now.
type look struct {
	ends cluster.Ends
	kind kind
}

// add puts ends of connections on the agenda. The kernel finds entries by their IPv4 addresses
// alone.
func (a *agenda) add(ends cluster.Ends) {
	quick, others, crowded := cluster.Ends{}, cluster.Ends{}, cluster.Ends{}
	quick.Add(a.queues[direct].fresh)
	for addr, role := range ends {
		if _, is := a.crowded[addr]; is {
			crowded[addr] = role
		} else if addr.Unmap().Is4() {
			quick[addr] |= role
		} else {
			others[addr] = role
		}
	}
	if len(queriesFor(quick)) <= mostDirect {
		a.queues[direct].fresh = quick
	} else {
		others.Add(ends)
		others.Remove(crowded)
	}
	a.queues[all].add(others)
	a.queues[crowds].add(crowded)
}

// crowd says that these ends have a crowd of connections. They are looked at by themselves, for a
// while, so that those of one pod don't keep others waiting.
func (a *agenda) crowd(now time.Time, ends cluster.Ends) {
	if a.crowded == nil {
		a.crowded = map[netip.Addr]time.Time{}
	}
	for addr := range ends {
		a.crowded[addr] = now.Add(crowdedFor)
	}
	a.queues[direct].remove(ends)
	a.queues[all].remove(ends)
	a.queues[crowds].add(ends)
}

// never is longer than anybody waits.
const never = time.Duration(1<<63 - 1)

// next returns what to look at now, and takes it off the agenda; or, if there is nothing, how long
// it will be until it is worth asking again.
func (a *agenda) next(now time.Time) (l look, wait time.Duration) {
	return a.nextBefore(now, kinds)
}

// nextBefore is next, of looks that are over before those of a kind.
func (a *agenda) nextBefore(now time.Time, before kind) (l look, soonest time.Duration) {
	maps.DeleteFunc(a.crowded, func(_ netip.Addr, until time.Time) bool {
		return !until.After(now)
	})
	soonest = never
	for k := range before {
		most := 0
		if k == direct {
			most = mostDirect
		}
		ends, wait := a.queues[k].next(now, most)
		if len(ends) > 0 {
			return look{ends, k}, 0
		}
		soonest = min(soonest, wait)
	}
	return look{}, soonest
}

// looked says that a look has ended, and what processor time it took. Without that, looks follow
// each other without a rest.
func (a *agenda) looked(now time.Time, l look, took time.Duration) {
	a.queues[l.kind].pay(now, took)
}

// next is agenda's of one queue: second looks, then what is fresh, as long as the kernel makes no
// more than most listings, unless that is 0.
func (q *queue) next(now time.Time, most int) (ends cluster.Ends, wait time.Duration) {
	wait = never
	if len(q.again) > 0 {
		wait = q.again[0].at.Sub(now)
	}
	if len(q.fresh) > 0 {
		wait = 0
	}
	if pace := q.paid.Add(-restSaved).Sub(now); wait != never {
		wait = max(wait, pace)
	}
	if wait > 0 {
		return nil, wait
	}
	ends = cluster.Ends{}
	take := func(more cluster.Ends) bool {
		both := cluster.Ends{}
		both.Add(ends)
		both.Add(more)
		if most > 0 && len(ends) > 0 && len(queriesFor(both)) > most {
			return false
		}
		ends = both
		return true
	}
	for len(q.again) > 0 && !q.again[0].at.After(now) && take(q.again[0].ends) {
		q.again = q.again[1:]
	}
	if len(q.fresh) > 0 && take(q.fresh) {
		q.again = append(q.again, secondLook{now.Add(lookAgain), q.fresh})
		q.fresh = nil
	}
	return ends, 0
}

func (q *queue) add(ends cluster.Ends) {
	if q.fresh == nil {
		q.fresh = cluster.Ends{}
	}
	q.fresh.Add(ends)
}

// remove takes ends out, the second looks at them too.
func (q *queue) remove(ends cluster.Ends) {
	q.fresh.Remove(ends)
	for _, s := range q.again {
		s.ends.Remove(ends)
	}
	q.again = slices.DeleteFunc(q.again, func(s secondLook) bool { return len(s.ends) == 0 })
}

func (q *queue) pay(now time.Time, took time.Duration) {
	if q.paid.Before(now) {
		q.paid = now
	}
	q.paid = q.paid.Add(restAfter(took))
}

func restAfter(took time.Duration) time.Duration { return max(restAfterLook*took, shortestRest) }
