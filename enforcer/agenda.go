package enforcer

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-net/sluice/policy/cluster"
)

// How often a node's connections are looked through. In the long run, rest follows each look: ten
// times the processor time that the look took, without a limit, as tenants can make looks long. A
// pause saves up to three seconds of rest, so that a few changes in a row, each with its second
// look, don't wait for each other.
const (
	restAfterLook = 10
	shortestRest  = 20 * time.Millisecond
	restSaved     = 3 * time.Second
	// failedLook is the least that a failed look counts for.
	failedLook = 100 * time.Millisecond
	// lookAgain is long enough for the packets that were under way in a commit to leave. With them
	// come the last connections that the commit's look can't have judged.
	lookAgain = time.Second
	// mostDirect bounds the listings that one look asks of the kernel. Each listing has what the
	// kernel finds by one address.
	mostDirect = 8
	// crowdedFor is how long an address counts as crowded once it had a crowd of connections.
	crowdedFor = time.Minute
)

// An agenda says whose connections are to be looked at, and when: as soon as the pace allows, and
// once more a while later. Looks by a few addresses have a pace of their own: they and the looks
// through all connections don't wait for each other's rest. Neither kind waits for looks at ends
// with a crowd of connections, which one tenant can make. The zero value is ready. It has no clock:
// times are its caller's.
type agenda struct {
	// filtersIPv6 says that the kernel finds entries also by an IPv6 address.
	filtersIPv6 bool

	queues  [kinds]queue
	crowded map[netip.Addr]time.Time // until when
}

// A kind of look. The kinds are in the order of how long they take, the shortest first.
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
	paid  time.Time    // rest is due until then, for the looks so far
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

// add puts ends of connections on the agenda.
func (a *agenda) add(ends cluster.Ends) {
	quick, others, crowded := cluster.Ends{}, cluster.Ends{}, cluster.Ends{}
	quick.Add(a.queues[direct].fresh)
	for addr, role := range ends {
		if _, is := a.crowded[addr]; is {
			crowded[addr] = role
		} else if addr.Unmap().Is4() || a.filtersIPv6 {
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

// crowd notes that these ends have a crowd of connections. For a while they get looks of their own,
// so that one pod's crowd doesn't keep others waiting.
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

// next returns what to look at now, and takes it off the agenda. If there is nothing, it returns
// how long to wait before asking again.
func (a *agenda) next(now time.Time) (l look, wait time.Duration) {
	return a.nextBefore(now, kinds)
}

// nextBefore is next for the kinds of looks that are shorter than a kind.
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

// looked notes the end of a look, and its processor time. Without this call there is no rest
// between looks.
func (a *agenda) looked(now time.Time, l look, took time.Duration) {
	a.queues[l.kind].pay(now, took)
}

// next is the agenda's next for one queue: second looks, then fresh ones, up to most listings of
// the kernel; 0 is no bound.
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

// remove takes ends out, with their second looks.
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
