package enforcer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/internal/fair"
	"github.com/sluice-net/sluice/internal/pause"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
)

// Enforcer owns the node's table. Updates by the reconcilers and the CNI server go into the model,
// and from there, batched, into the kernel. Its methods may be called from several goroutines.
//
// Nothing is written before Run, whose first write is a difference against what the kernel holds. A
// write that fails is tried again, with what changed since, until it succeeds.
type Enforcer struct {
	table *table.Table
	opts  Options
	wake  chan struct{} // holds a token while there may be something to commit

	mu    sync.Mutex
	model *Model
	// since is when the oldest event arrived that isn't committed yet.
	since   time.Time
	started bool
	lastErr error // of the last commit
	// updates counts updates. isolated is its value when the last successful commit took its
	// changes, and done its value when one took all of them: some rules may have to wait, see pace;
	// endpoints never wait.
	updates, isolated, done uint64
	pace                    pace
	more                    bool // the last commit left something
	ipvsCame                bool // what IPVS sent on until now wasn't judged
	hold                    hold
	// enforced are the endpoints whose policy is in the kernel. pending are the endpoints of
	// commits that haven't succeeded, or whose policies' rules have to wait, as they will be.
	enforced map[string]struct{}
	pending  map[string]bool
	// committed is closed, and replaced, by every successful commit.
	committed chan struct{}

	failing    failing
	repairs    repairs
	refusals   refusals
	denials    denialCounts
	shed       map[policy.Key]struct{} // policies that were reported as too costly
	lines      fair.Log                // about what policies of a namespace cause
	cutter     *Cutter                 // nil: nothing is cut
	departures *Departures             // nil: no connections are forgotten
}

// Options are an Enforcer's callbacks. All of them may be left out.
type Options struct {
	Log     logr.Logger
	Metrics *Metrics
	// Warn and Say report to the node's operator that something about the table is wrong, or is as
	// it should be. Reason is one word in CamelCase.
	Warn, Say func(reason, note string)
	// OnRefused gets what the kernel refuses, OnShed the policies that cost too much. Both are
	// called on goroutines of their own.
	OnRefused func(Refusal)
	OnShed    func(Shed)
}

// New returns an Enforcer that writes to the table, which stays the caller's to close after Run.
// The model is the Enforcer's from then on.
func New(table *table.Table, model *Model, opts Options) *Enforcer {
	if opts.Metrics == nil {
		opts.Metrics = NewMetrics()
	}
	nobody := func(string, string) {}
	if opts.Warn == nil {
		opts.Warn = nobody
	}
	if opts.Say == nil {
		opts.Say = nobody
	}
	return &Enforcer{
		table: table, opts: opts, wake: make(chan struct{}, 1), model: model,
		committed: make(chan struct{}),
		enforced:  map[string]struct{}{}, pending: map[string]bool{},
	}
}

// Update changes the model and has the difference committed. What f reads to decide must be read
// within f, so that of two updates of one object the later read wins.
func (e *Enforcer) Update(f func(m *Model)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.since.IsZero() {
		e.since = time.Now()
	}
	if e.done == e.updates { // nothing waits yet
		e.opts.Metrics.noteBehind(e.since)
	}
	f(e.model)
	e.updates++
	e.signal()
}

// SetNetwork sets what the ruleset has to know of the pod network, and which addresses policy takes
// for pods'.
func (e *Enforcer) SetNetwork(n ruleset.Network) {
	e.Update(func(m *Model) { m.setNetwork(n) })
}

// SetIPVS says whether IPVS may send packets on. Connections that it led to pods before are looked
// at once the ruleset judges what it sends.
func (e *Enforcer) SetIPVS(on bool) {
	e.Update(func(m *Model) { e.ipvsCame = m.setIPVS(on) && on || e.ipvsCame })
}

// AwaitFirstCommit returns once the first ruleset is in the kernel, or with the reason why it isn't
// when ctx ends.
func (e *Enforcer) AwaitFirstCommit(ctx context.Context) error {
	return e.await(ctx, func() error {
		if e.done == 0 {
			return errors.New("the ruleset isn't in the kernel yet")
		}
		return nil
	})
}

// signal makes Run look for something to commit.
func (e *Enforcer) signal() {
	select {
	case e.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// Ready is nil once the first write is done; it is a health check.
func (e *Enforcer) Ready() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.done > 0:
		return nil
	case e.lastErr != nil:
		return fmt.Errorf("the ruleset isn't in the kernel yet: %w", e.lastErr)
	}
	return errors.New("the ruleset isn't in the kernel yet: waiting for the API server's objects")
}

// Back-off between tries of a commit that fails.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// Run commits until ctx ends. It must be called once, when the cluster's model holds every object
// that exists.
func (e *Enforcer) Run(ctx context.Context) error {
	defer e.guard(ctx)()
	retry := firstRetry
	for ctx.Err() == nil {
		err := e.repair(ctx)
		if err == nil {
			err = e.commit(ctx)
		}
		if err == nil {
			e.noteSuccess()
			retry = firstRetry
			select {
			case <-ctx.Done():
			case <-e.wake:
			}
			continue
		}
		if ctx.Err() == nil {
			e.noteFailure(err, retry)
		}
		pause.For(ctx, retry)
		retry = min(2*retry, lastRetry)
	}
	return nil
}

// commit writes what changed since the last commit. The table keeps its goal, so that a patch whose
// write failed isn't lost.
func (e *Enforcer) commit(ctx context.Context) error {
	e.mu.Lock()
	since, updates, first, failed := e.since, e.updates, !e.started, e.lastErr != nil
	e.since, e.started = time.Time{}, true
	start := time.Now()
	changes, whole, patch := e.model.Next(e.pace.next(first))
	e.more = e.model.Backlog()
	e.cutter.note(e.model, changes, first || e.ipvsCame, e.enforced)
	e.ipvsCame = false
	e.departures.Leave(changes.Left)
	for _, id := range changes.Endpoints {
		_, e.pending[id] = e.model.Endpoint(id)
	}
	e.mu.Unlock()

	var err error
	switch {
	case first:
		err = e.table.Sync(ctx, whole)
	case failed || !patch.Empty():
		err = e.table.Apply(ctx, patch)
	}
	left, err := e.applyWithoutRefused(ctx, err)
	e.keepDenials()

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lastErr = err; err != nil {
		e.since = since
		return err
	}
	if e.done == 0 {
		e.reportOwner()
	}
	if !first && !patch.Empty() && !since.IsZero() {
		e.opts.Metrics.commitSeconds.Observe(time.Since(since).Seconds())
	}
	e.pace.note(time.Since(start), e.more)
	if e.more {
		e.signal()
	}
	e.noteRefused(left)
	e.noteShed()
	e.noteCommit(updates)
	e.cutter.committed()
	return nil
}

// noteCommit notes that everything up to an update is in the kernel, except rules that have to
// wait.
func (e *Enforcer) noteCommit(updates uint64) {
	e.isolated = updates
	if !e.more {
		e.done = updates
		e.opts.Metrics.noteBehind(e.since) // of what came meanwhile
	}
	for id, exists := range e.pending {
		if exists && e.refusals.blocked[id] != nil {
			delete(e.enforced, id) // it stays pending
			continue
		}
		if exists && e.more && e.model.Waiting(id) {
			continue
		}
		if exists {
			e.enforced[id] = struct{}{}
		} else {
			delete(e.enforced, id)
		}
		delete(e.pending, id)
	}
	e.opts.Metrics.endpointsEnforced.Set(float64(len(e.enforced)))
	close(e.committed)
	e.committed = make(chan struct{})
}

// Adopt takes over the attachments that an earlier agent recorded. It is called before the first
// write, which must not delete their dispatch.
func (e *Enforcer) Adopt(attachments []cni.Attachment) {
	e.Update(func(m *Model) {
		for _, a := range attachments {
			m.setAttachment(a)
		}
	})
}

// Attach puts an attachment under policy. It returns when the pod is known and its policy is in the
// kernel, and nothing holds pods back, or with the reason why not when ctx ends. It implements
// cni.Enforcer.
func (e *Enforcer) Attach(ctx context.Context, a cni.Attachment) error {
	e.Adopt([]cni.Attachment{a})
	return e.await(ctx, func() error {
		if err := e.hold.reason(e.isolated); err != nil {
			return err
		}
		if err := e.refusals.blocked[a.ID()]; err != nil {
			return fmt.Errorf("the rules of pod %s/%s: %w", a.PodNamespace, a.PodName, err)
		}
		if _, ok := e.enforced[a.ID()]; !ok {
			return fmt.Errorf("pod %s/%s with UID %s isn't known here yet", a.PodNamespace,
				a.PodName, a.PodUID)
		}
		return nil
	})
}

// Enforced is nil if the policy of an attachment's pod is in the kernel, as of the last commit. It
// implements cni.Enforcer.
func (e *Enforcer) Enforced(id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.enforced[id]; !ok {
		return errors.New("its policy isn't in the kernel")
	}
	return nil
}

// Detach takes an attachment out of policy and of the kernel's dispatch. It implements
// cni.Enforcer.
func (e *Enforcer) Detach(ctx context.Context, id string) error {
	e.Update(func(m *Model) { m.deleteAttachment(id) })
	return e.await(ctx, func() error { return nil })
}

// await returns once all updates so far are committed, except rules that have to wait, and lacks,
// called with the lock held, returns nil. When ctx ends first, the error says why.
func (e *Enforcer) await(ctx context.Context, lacks func() error) error {
	e.mu.Lock()
	updates := e.updates
	e.mu.Unlock()
	for {
		e.mu.Lock()
		committed, missing, failed := e.committed, lacks(), e.lastErr
		done := e.isolated >= updates
		e.mu.Unlock()
		if done && missing == nil {
			return nil
		}
		select {
		case <-committed:
		case <-ctx.Done():
			return cmp.Or(wrapIf("the ruleset can't be written", failed), missing,
				wrapIf("waiting for the kernel", ctx.Err()))
		}
	}
}

func wrapIf(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
