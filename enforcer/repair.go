package enforcer

import (
	"context"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/pause"
	"github.com/sluice-net/sluice/internal/processortime"
)

// This file keeps others from having the last word about our table: what they change is put right
// at once, and a slow look finds what nobody was told of.

// backstop is how often the table is read back without a reason, and how often what the kernel
// refused is tried again.
const backstop = time.Minute

// repairs is what the Enforcer knows of others' changes. It is guarded by the Enforcer's lock.
type repairs struct {
	due     bool // somebody may have changed the table
	waiting bool // until the budget allows it
	budget  allowance
	told    time.Time // when a repair was logged last
}

// tellEvery is how often a repair is logged, and told in an Event, at most: in a fight with
// somebody who changes the table again and again, once is enough.
const tellEvery = 10 * time.Second

// An allowance bounds the processor time that repairs take: at once as long as there is some left,
// and in the long run no more than a share of one processor, but at least every ten seconds. The
// zero value is full.
type allowance struct {
	spent time.Duration
	at    time.Time // as of when
}

const (
	mostSpent   = 5 * time.Second // the largest burst
	earnedEvery = 50              // a second of work for so many of waiting: 2 %
	longestWait = 10 * time.Second
)

// wait returns how long the next repair has to wait.
func (a *allowance) wait(now time.Time) time.Duration {
	a.earn(now)
	return max(0, a.spent-mostSpent) * earnedEvery
}

// spend notes what a repair took.
func (a *allowance) spend(now time.Time, took time.Duration) {
	a.earn(now)
	a.spent = min(a.spent+took, mostSpent+longestWait/earnedEvery)
}

func (a *allowance) earn(now time.Time) {
	a.spent = max(0, a.spent-now.Sub(a.at)/earnedEvery)
	a.at = now
}

// suspect has the table read back: somebody may have changed it.
func (e *Enforcer) suspect() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.repairs.due {
		e.repairs.due = true
		e.signal()
	}
}

// dueRepair reports whether the table is to be read back now. If it is only later, it sees to that.
func (e *Enforcer) dueRepair() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.repairs.due || !e.started || e.repairs.waiting {
		return false
	}
	wait := e.repairs.budget.wait(time.Now())
	if wait == 0 {
		e.repairs.due = false
		return true
	}
	e.repairs.waiting = true
	time.AfterFunc(wait, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.repairs.waiting = false
		e.signal()
	})
	return false
}

// guard watches the table until ctx ends; the function that it returns waits for that.
func (e *Enforcer) guard(ctx context.Context) (wait func()) {
	var all sync.WaitGroup
	all.Go(func() {
		for ctx.Err() == nil {
			if err := e.table.Watch(ctx, e.suspect); err != nil {
				e.opts.Log.Error(err,
					"Watching for others' changes of the ruleset failed; trying again", "after",
					lastRetry.String())
				pause.For(ctx, lastRetry)
			}
		}
	})
	all.Go(func() {
		tick := time.NewTicker(backstop)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				e.table.Retry()
				e.suspect()
			}
		}
	})
	return all.Wait
}

// repair makes the table again what it is to be, if somebody may have changed it. Where too much
// time went into that lately it comes back later.
func (e *Enforcer) repair(ctx context.Context) error {
	if !e.dueRepair() {
		return nil
	}
	runtime.LockOSThread() // whose time is taken: the agent has other work
	defer runtime.UnlockOSThread()
	start := processortime.Used(unix.RUSAGE_THREAD)
	differences, err := e.table.Repair(ctx)
	left, err := e.makeDo(ctx, err)

	e.mu.Lock()
	defer e.mu.Unlock()
	e.repairs.budget.spend(time.Now(), processortime.Used(unix.RUSAGE_THREAD)-start)
	if len(differences) > 0 {
		e.opts.Metrics.rulesetRepairs.Inc()
		e.tellRepair(differences)
	}
	if e.lastErr = err; err != nil {
		e.repairs.due = true
		return err
	}
	e.noteRefused(left)
	e.noteCommit(e.isolated)
	return nil
}

// tellOwner says why others can change the table, where they shouldn't.
func (e *Enforcer) tellOwner() {
	if why := e.table.WhyNotOwned(); why != "" {
		e.opts.Log.Info(
			"The table isn't owned, so that others can change it; what they do is put right",
			"reason", why)
	}
}

func (e *Enforcer) tellRepair(differences []string) {
	if time.Since(e.repairs.told) < tellEvery {
		return
	}
	e.repairs.told = time.Now()
	const few = 5
	first := differences[:min(few, len(differences))]
	e.opts.Log.Info("Somebody else has changed the ruleset; it is put right", "differences",
		len(differences), "first", first)
	e.opts.Warn("RulesetChanged", "somebody else has changed table inet sluice; it is put right "+
		"(the agent's log has the differences)")
}
