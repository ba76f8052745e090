package fair

import "time"

// Bucket bounds the rate of an action: most times at once, and once each interval in the long run.
// It has no clock: times are its caller's.
type Bucket struct {
	Most  int
	Every time.Duration

	used time.Duration // in intervals, what isn't refilled yet
	at   time.Time
}

// Take reports whether the action may be done now, and if so counts it.
func (b *Bucket) Take(now time.Time) bool {
	if b.Wait(now) > 0 {
		return false
	}
	b.used += b.Every
	return true
}

// Wait is how long it is until the action may be done.
func (b *Bucket) Wait(now time.Time) time.Duration {
	if passed := now.Sub(b.at); passed > 0 {
		b.used, b.at = max(0, b.used-passed), now
	}
	return max(0, b.used+b.Every-time.Duration(b.Most)*b.Every)
}

// Idle reports whether the bucket is as if it had never been used.
func (b *Bucket) Idle(now time.Time) bool {
	b.Wait(now)
	return b.used == 0
}

// lineBudgets bounds the log lines that each of many sources (a namespace, another node) can cause,
// so that no source crowds out lines about others. It has no clock, and isn't for concurrent use.
type lineBudgets map[string]*sourceLines

type sourceLines struct {
	Bucket
	leftOut int
}

// Lines that one source can cause: at once, and in the long run.
const linesAtOnce, lineInterval = 20, 10 * time.Second

// ManySources is how many are remembered before idle ones are forgotten.
const ManySources = 1000

// take asks for a line. It returns how many lines of the source were left out before it, or false
// if there is none left.
func (l lineBudgets) take(now time.Time, source string) (leftOut int, ok bool) {
	if len(l) >= ManySources {
		for name, s := range l {
			if s.Idle(now) {
				delete(l, name)
			}
		}
	}
	s := l[source]
	if s == nil {
		s = &sourceLines{Bucket: Bucket{Most: linesAtOnce, Every: lineInterval}}
		l[source] = s
	}
	if !s.Take(now) {
		s.leftOut++
		return 0, false
	}
	leftOut, s.leftOut = s.leftOut, 0
	return leftOut, true
}
