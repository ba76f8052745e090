package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// Enforcer owns the node's state: what the reconcilers and the CNI server
// tell it goes into the cluster's model, and from there, batched, into the
// kernel. Its methods may be called from several goroutines.
//
// Nothing is written before Run, whose first write is a difference against
// what the kernel holds. A write that fails is tried again, with what changed
// since, until it succeeds.
type Enforcer struct {
	table *table.Table
	log   logr.Logger
	// Events is the node that repairs are told of. OnRefused is told what the
	// kernel refuses, OnShed which policies of a namespace cost too much, and
	// why, and OnLeft the addresses that pods lost when their node did; these may
	// be nil. All are set before Run.
	Events    NodeEvents
	OnRefused func(Refusal)
	OnShed    func(policies []policy.Key, reason string)
	OnLeft    func(addrs []netip.Addr)
	wake      chan struct{} // holds a token while there may be something to commit

	mu      sync.Mutex
	cluster *policy.Cluster
	render  *Renderer
	// since is when the oldest event arrived that isn't committed yet.
	since   time.Time
	started bool
	lastErr error // of the last commit
	// told counts updates. isolated is what it was when the last successful
	// commit took its changes, and done when one took all of them: some rules may
	// have to wait, see pace, while endpoints never do.
	told, isolated, done uint64
	pace                 pace
	more                 bool // the last commit left something
	// enforced are the endpoints whose policy is in the kernel; pending says
	// of others, taken for commits that haven't succeeded or whose policies'
	// rules have to wait, what they will be.
	enforced map[string]struct{}
	pending  map[string]bool
	// committed is closed, and replaced, by every successful commit.
	committed chan struct{}

	failing  failing
	repairs  repairs
	refusals refusals
	denials  denialCounts
	shed     map[policy.Key]struct{} // policies that were told to cost too much
	lines    fairLog                 // about what policies of a namespace cause
	// affected are the connections that changes concern which aren't committed yet; cutter is told of them then, if there is one.
	affected policy.Affected
	cutter   *Cutter
}

// NewEnforcer returns an Enforcer that writes to the table, which stays the
// caller's to close after Run.
func NewEnforcer(table *table.Table, opts policy.Options, cfg RulesetConfig, log logr.Logger) *Enforcer {
	return &Enforcer{
		table: table, log: log, wake: make(chan struct{}, 1),
		cluster: policy.NewCluster(opts), render: NewRenderer(cfg), committed: make(chan struct{}),
		enforced: map[string]struct{}{}, pending: map[string]bool{},
	}
}

// Update changes the cluster's model and has the difference committed. What f
// reads to decide must be read within f, so that of two updates of one object
// the later read wins.
func (e *Enforcer) Update(f func(c *policy.Cluster)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.since.IsZero() {
		e.since = time.Now()
	}
	f(e.cluster)
	e.told++
	e.signal()
}

// SetNetwork says what the ruleset has to know of the pod network, and policy of which addresses are pods'.
func (e *Enforcer) SetNetwork(n Network) {
	e.Update(func(c *policy.Cluster) {
		c.SetPodNetworks(n.Pods)
		e.render.SetNetwork(n, e.render.cfg.PodRanges)
	})
}

// setGuard says which addresses are those of pods that another plugin wires.
// It is called within Update.
func (e *Enforcer) setGuard(ranges []netip.Prefix) {
	if !slices.Equal(ranges, e.render.cfg.PodRanges) {
		e.render.SetNetwork(e.render.cfg.Network, ranges)
	}
}

// AwaitFirstCommit returns once the first ruleset is in the kernel, or with
// the reason why it isn't when ctx ends.
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

// Explain judges a flow by what is known now; own are addresses of this node.
func (e *Enforcer) Explain(f policy.Flow, own ...netip.Addr) policy.Answer {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cluster.Explain(f, own...)
}

// namespaceAt is the namespace of the pod that policies mean by an address, or
// "".
func (e *Enforcer) namespaceAt(a netip.Addr) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cluster.NamespaceAt(a)
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

// Run commits until ctx ends. It must be called once, when the cluster's
// model holds every object that exists.
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
		pause(ctx, retry)
		retry = min(2*retry, lastRetry)
	}
	return nil
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// commit writes what changed since the last commit. The table remembers what
// it was to become, so that a patch whose write failed isn't lost.
func (e *Enforcer) commit(ctx context.Context) error {
	e.mu.Lock()
	since, told, first, failed := e.since, e.told, !e.started, e.lastErr != nil
	e.since, e.started = time.Time{}, true
	start := time.Now()
	changes := e.cluster.TakeSome(e.pace.next(first))
	e.more = e.cluster.Backlog()
	e.noteAffected(changes, first)
	if e.OnLeft != nil {
		e.OnLeft(changes.Left)
	}
	for _, id := range changes.Endpoints {
		_, e.pending[id] = e.cluster.Endpoint(id)
	}
	var whole *nft.Ruleset
	var patch nft.Patch
	if first {
		whole = e.render.Ruleset(e.cluster)
	} else {
		patch = e.render.Patch(e.cluster, changes)
	}
	e.mu.Unlock()

	var err error
	switch {
	case first:
		err = e.table.Sync(ctx, whole)
	case failed || !patch.Empty():
		err = e.table.Apply(ctx, patch)
	}
	left, err := e.makeDo(ctx, err)
	e.keepDenials()

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lastErr = err; err != nil {
		e.since = since
		return err
	}
	if e.done == 0 {
		e.tellOwner()
	}
	if !first && !patch.Empty() && !since.IsZero() {
		commitSeconds.Observe(time.Since(since).Seconds())
	}
	e.pace.note(time.Since(start), e.more)
	if e.more {
		e.signal()
	}
	e.noteRefused(left)
	e.noteShed()
	e.noteCommit(told)
	e.tellCutter()
	return nil
}

// noteCommit says that everything up to an update is in the kernel, but for
// what has to wait.
func (e *Enforcer) noteCommit(told uint64) {
	e.isolated = told
	if !e.more {
		e.done = told
	}
	for id, exists := range e.pending {
		if exists && e.refusals.blocked[id] != nil {
			delete(e.enforced, id) // it stays pending
			continue
		}
		if exists && e.more && e.cluster.Waiting(id) {
			continue
		}
		if exists {
			e.enforced[id] = struct{}{}
		} else {
			delete(e.enforced, id)
		}
		delete(e.pending, id)
	}
	endpointsEnforced.Set(float64(len(e.enforced)))
	close(e.committed)
	e.committed = make(chan struct{})
}

// Adopt takes over the attachments that an earlier agent recorded, before the
// first write: that write must not take their dispatch away.
func (e *Enforcer) Adopt(attachments []cni.Attachment) {
	e.Update(func(c *policy.Cluster) {
		for _, a := range attachments {
			e.render.SetHostPorts(a.ID(), a.HostPorts)
			c.SetEndpoint(endpointOf(a))
		}
	})
}

// Attach puts an attachment under policy. It returns when the pod is known
// and its policy is in the kernel, or with the reason why not when ctx ends.
// It implements cni.Enforcer.
func (e *Enforcer) Attach(ctx context.Context, a cni.Attachment) error {
	e.Adopt([]cni.Attachment{a})
	return e.await(ctx, func() error {
		if err := e.refusals.blocked[a.ID()]; err != nil {
			return fmt.Errorf("the rules of pod %s/%s: %w", a.PodNamespace, a.PodName, err)
		}
		if _, ok := e.enforced[a.ID()]; !ok {
			return fmt.Errorf("pod %s/%s with UID %s isn't known here yet", a.PodNamespace, a.PodName, a.PodUID)
		}
		return nil
	})
}

// Enforced is nil if the policy of an attachment's pod is in the kernel, as
// of the last commit. It implements cni.Enforcer.
func (e *Enforcer) Enforced(id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.enforced[id]; !ok {
		return errors.New("its policy isn't in the kernel")
	}
	return nil
}

// Detach takes an attachment out of policy and of the kernel's dispatch. It
// implements cni.Enforcer.
func (e *Enforcer) Detach(ctx context.Context, id string) error {
	e.Update(func(c *policy.Cluster) {
		e.render.SetHostPorts(id, nil)
		c.DeleteEndpoint(id)
	})
	return e.await(ctx, func() error { return nil })
}

// await returns once everything told so far is committed, but for rules that
// have to wait, and lacks, called with the lock held, returns nil. When ctx ends first it says why.
func (e *Enforcer) await(ctx context.Context, lacks func() error) error {
	e.mu.Lock()
	told := e.told
	e.mu.Unlock()
	for {
		e.mu.Lock()
		committed, missing, failed := e.committed, lacks(), e.lastErr
		done := e.isolated >= told
		e.mu.Unlock()
		if done && missing == nil {
			return nil
		}
		select {
		case <-committed:
		case <-ctx.Done():
			return cmp.Or(wrapIf("the ruleset can't be written", failed), missing, wrapIf("waiting for the kernel", ctx.Err()))
		}
	}
}

func wrapIf(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func endpointOf(a cni.Attachment) policy.Endpoint {
	return policy.Endpoint{
		ID:        a.ID(),
		Pod:       selector.Pod{Namespace: a.PodNamespace, Name: a.PodName, UID: a.PodUID},
		Interface: a.Interface,
		Addresses: a.Addresses,
	}
}
