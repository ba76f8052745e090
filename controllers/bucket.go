package controllers

import "time"

// bucket bounds how often something is done: most times at once, and once
// each interval in the long run. It has no clock: times are its caller's.
type bucket struct {
	most  int
	every time.Duration

	used time.Duration // in intervals, what isn't refilled yet
	at   time.Time
}

// take reports whether it may be done now, and if so counts that.
func (b *bucket) take(now time.Time) bool {
	if b.wait(now) > 0 {
		return false
	}
	b.used += b.every
	return true
}

// wait is how long it is until it may be done.
func (b *bucket) wait(now time.Time) time.Duration {
	if passed := now.Sub(b.at); passed > 0 {
		b.used, b.at = max(0, b.used-passed), now
	}
	return max(0, b.used+b.every-time.Duration(b.most)*b.every)
}

// idle reports whether the bucket is as if it had never been used.
func (b *bucket) idle(now time.Time) bool {
	b.wait(now)
	return b.used == 0
}

// lineBudgets bounds the log lines that each of many sources (a namespace,
// another node) can cause, so that none crowds out what is said of another.
// It has no clock, and isn't for concurrent use.
type lineBudgets map[string]*sourceLines

type sourceLines struct {
	bucket
	leftOut int
}

// Lines that one source can cause: at once, and in the long run.
const linesAtOnce, lineInterval = 20, 10 * time.Second

// manySources is how many are remembered before idle ones are forgotten.
const manySources = 1000

// take asks for a line. It returns how many of the source were left out before
// it, or that there is none to be had.
func (l lineBudgets) take(now time.Time, source string) (leftOut int, ok bool) {
	if len(l) >= manySources {
		for name, s := range l {
			if s.idle(now) {
				delete(l, name)
			}
		}
	}
	s := l[source]
	if s == nil {
		s = &sourceLines{bucket: bucket{most: linesAtOnce, every: lineInterval}}
		l[source] = s
	}
	if !s.take(now) {
		s.leftOut++
		return 0, false
	}
	leftOut, s.leftOut = s.leftOut, 0
	return leftOut, true
}
