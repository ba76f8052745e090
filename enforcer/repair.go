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

// This file repairs our table when other programs change it: at once after a notification, and
// within a minute without one.

// backstop is how often the table is read back without a reason, and how often what the kernel
// refused is tried again.
const backstop = time.Minute

// repairs is what the Enforcer knows of other programs' changes. It is guarded by the Enforcer's
// lock.
type repairs struct {
	due     bool // another program may have changed the table
	waiting bool // until the budget allows it
	budget  allowance
	logged  time.Time // when a repair was logged last
}

// reportEvery is the least time between two reports of repairs, in the log and as Events. In a
// fight with a program that changes the table again and again, one report is enough.
const reportEvery = 10 * time.Second

// An allowance bounds the processor time of repairs. A repair starts at once while some is left. In
// the long run repairs take at most a share of one processor, but no repair waits longer than ten
// seconds. The zero value is full.
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

// requestReadBack has Run read the table back: another program may have changed it.
func (e *Enforcer) requestReadBack() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.repairs.due {
		e.repairs.due = true
		e.signal()
	}
}

// dueRepair reports whether the table is to be read back now. If the time is later, it wakes Run
// then.
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
			if err := e.table.Watch(ctx, e.requestReadBack); err != nil {
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
				e.requestReadBack()
			}
		}
	})
	return all.Wait
}

// repair restores the table if another program may have changed it. Where repairs took too much
// time lately, it comes back later.
func (e *Enforcer) repair(ctx context.Context) error {
	if !e.dueRepair() {
		return nil
	}
	runtime.LockOSThread() // whose time is taken: the agent has other work
	defer runtime.UnlockOSThread()
	start := processortime.Used(unix.RUSAGE_THREAD)
	differences, err := e.table.Repair(ctx)
	left, err := e.applyWithoutRefused(ctx, err)

	e.mu.Lock()
	defer e.mu.Unlock()
	e.repairs.budget.spend(time.Now(), processortime.Used(unix.RUSAGE_THREAD)-start)
	if len(differences) > 0 {
		e.opts.Metrics.rulesetRepairs.Inc()
		e.reportRepair(differences)
	}
	if e.lastErr = err; err != nil {
		e.repairs.due = true
		return err
	}
	e.noteRefused(left)
	e.noteCommit(e.isolated)
	return nil
}

// reportOwner reports why other programs can change the table, where they shouldn't.
func (e *Enforcer) reportOwner() {
	if why := e.table.WhyNotOwned(); why != "" {
		e.opts.Log.Info(
			"The table isn't owned, so that others can change it; what they do is put right",
			"reason", why)
	}
}

func (e *Enforcer) reportRepair(differences []string) {
	if time.Since(e.repairs.logged) < reportEvery {
		return
	}
	e.repairs.logged = time.Now()
	const few = 5
	first := differences[:min(few, len(differences))]
	e.opts.Log.Info("Another program has changed the ruleset; it is put right", "differences",
		len(differences), "first", first)
	e.opts.Warn("RulesetChanged", "another program has changed table inet sluice; it is put right "+
		"(the agent's log has the differences)")
}
