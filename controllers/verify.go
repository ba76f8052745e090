package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/verify"
	"github.com/sluice-net/sluice/verify/kernel"
)

// Verifier holds what the kernel's table does against what the policies mean:
// all the time, a little at a time, and whenever somebody asks. It changes
// nothing. Its methods may be called from several goroutines.
type Verifier struct {
	Enforcer *Enforcer
	Events   NodeEvents
	Log      logr.Logger
	// Kernel says where the table is.
	Kernel kernel.Options

	asked sync.Mutex // one request at a time: each takes a core

	// Of Run's goroutine.
	told string // the state that was told last
}

// How much of a core Run takes, and how often it looks at all.
const (
	restFactor  = 130 // rest so many times as long as work: garbage collection takes a fifth more beside it
	betweenRuns = 10 * time.Second
	tryAgain    = time.Second // where the node is busy
)

// verifyPair is what the kernel does and what it has to do, as of one moment.
type verifyPair struct {
	program *kernel.Program
	meaning *policy.Cluster // a snapshot
	node    *verify.Node
}

// errBusy says that changes came in all the time.
var errBusy = errors.New("the node's policies change all the time")

// settled returns what has to be in the kernel, if everything that was told is
// there.
func (e *Enforcer) settled() (meaning *policy.Cluster, node *verify.Node, told uint64, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done == 0 || e.done != e.told || e.lastErr != nil {
		return nil, nil, 0, false
	}
	cfg := e.render.cfg
	return e.cluster.Snapshot(), cfg.verified(), e.told, true
}

func (e *Enforcer) toldNow() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.told
}

// pair reads the kernel while nothing changes: both sides are of one moment.
func (v *Verifier) pair(ctx context.Context) (*verifyPair, error) {
	meaning, node, told, ok := v.Enforcer.settled()
	if !ok {
		return nil, errBusy
	}
	program, err := kernel.Read(ctx, v.Kernel)
	if v.Enforcer.toldNow() != told || errors.Is(err, kernel.ErrChanging) {
		return nil, errBusy
	}
	if err != nil {
		return nil, err
	}
	return &verifyPair{program, meaning, node}, nil
}

func (p *verifyPair) pass() *verify.Pass {
	return verify.NewPass(p.program, p.meaning.Meaning(), p.node)
}

// Now compares everything, as fast as it can. It waits while the node is busy,
// until ctx ends.
func (v *Verifier) Now(ctx context.Context) (verify.Result, error) {
	v.asked.Lock()
	defer v.asked.Unlock()
	for {
		p, err := v.pair(ctx)
		if err == nil {
			return p.pass().Run(ctx)
		}
		if !errors.Is(err, errBusy) || ctx.Err() != nil {
			return verify.Result{}, err
		}
		pause(ctx, tryAgain/10)
	}
}

// Run compares until ctx ends, with less than a hundredth of a core.
func (v *Verifier) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		result, err := v.slowly(ctx)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errBusy):
			pause(ctx, tryAgain)
			continue
		default:
			v.tell(result, err)
		}
		pause(ctx, betweenRuns)
	}
	return nil
}

// slowly is one comparison, with rests.
func (v *Verifier) slowly(ctx context.Context) (verify.Result, error) {
	begin := time.Now()
	var worked time.Duration
	var p *verify.Pass
	more := true
	step := func(f func() error) error {
		start := time.Now()
		err := f()
		took := time.Since(start)
		worked += took
		pause(ctx, restFactor*took)
		return err
	}
	err := step(func() error {
		pair, err := v.pair(ctx)
		if err == nil {
			p = pair.pass()
		}
		return err
	})
	for err == nil && more && ctx.Err() == nil {
		err = step(func() (err error) {
			more, err = p.Step()
			return err
		})
	}
	if err != nil || ctx.Err() != nil {
		return verify.Result{}, err
	}
	verifySeconds.Observe(time.Since(begin).Seconds())
	verifyWork.Add(worked.Seconds())
	verifyPasses.Inc()
	return p.Result(), nil
}

// tell tells of what changed since the last comparison.
func (v *Verifier) tell(r verify.Result, err error) {
	verifyDifferences.Set(float64(r.Total))
	verifyUnreadable.Set(boolValue(err != nil))
	state, note := "", ""
	switch {
	case err != nil:
		state, note = "RulesetUnreadable", "what the kernel does with pods' packets can't be told: "+err.Error()
	case r.Total > 0:
		why := ""
		if n := v.Enforcer.refused(); n > 0 {
			why = fmt.Sprintf(" (it refuses %d objects of the ruleset: see the Events RefusedByKernel)", n)
		}
		state, note = "RulesetDiffers", fmt.Sprintf("the kernel does otherwise than the policies mean in %d cases%s: %s", r.Total, why, r.Differences[0])
	}
	if state == v.told {
		return
	}
	v.told = state
	if state == "" {
		v.Log.Info("The kernel does what the policies mean again", "classes", r.Classes)
		v.Events.Say("RulesetVerified", "the kernel does what the policies mean again")
		return
	}
	v.Log.Info("The kernel doesn't do what the policies mean, or can't be read", "reason", state, "note", note)
	v.Events.Warn(state, note)
}

// VerifyAnswer is what VerifyHandler answers.
type VerifyAnswer struct {
	// Error says why it couldn't be verified; the rest is empty then.
	Error       string   `json:"error,omitempty"`
	Differences []string `json:"differences,omitempty"` // at most verify.MaxDifferences
	Total       int      `json:"total"`
	Classes     int      `json:"classes"` // of packets, that were compared
}

// VerifyHandler answers GET: what the kernel does otherwise than the policies
// mean, now.
func VerifyHandler(v *Verifier) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		result, err := v.Now(r.Context())
		out := VerifyAnswer{Total: result.Total, Classes: result.Classes}
		if err != nil {
			out.Error = err.Error()
		}
		for _, d := range result.Differences {
			out.Differences = append(out.Differences, d.String())
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(out); err != nil {
			v.Log.V(1).Info("Answering a question failed", "reason", err.Error())
		}
	})
}
