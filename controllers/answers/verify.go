package answers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/internal/pause"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/verify"
	"github.com/sluice-net/sluice/verify/kernel"
)

// Verifier compares what the kernel's table does with what the policies mean: all the time, in
// small steps, and on request. It changes nothing. Its methods may be called from several
// goroutines.
type Verifier struct {
	enforcer *enforcer.Enforcer
	events   notify.NodeEvents
	log      logr.Logger
	kernel   kernel.Options
	metrics  verifyMetrics

	asked sync.Mutex // one request at a time: each takes a core

	// Of Run's goroutine.
	reported string // the state that was reported last
}

// NewVerifier returns a Verifier of an Enforcer's table; kernel says where that is.
func NewVerifier(e *enforcer.Enforcer, kernel kernel.Options, events notify.NodeEvents,
	log logr.Logger) *Verifier {
	return &Verifier{enforcer: e, events: events, log: log, kernel: kernel,
		metrics: newVerifyMetrics()}
}

// The share of a core that Run takes, and how often it compares.
const (
	// restFactor is how many times as long as its work Run rests: garbage collection takes a fifth
	// more besides
	restFactor  = 130
	betweenRuns = 10 * time.Second
	tryAgain    = time.Second // where the node is busy
)

// verifyPair is what the kernel does and what it has to do, at one moment.
type verifyPair struct {
	program *kernel.Program
	meaning *cluster.Cluster // a snapshot
	node    *verify.Node
}

// errBusy says that changes came without a pause.
var errBusy = errors.New("the node's policies change all the time")

// pair reads the kernel while nothing changes: both sides are of one moment.
func (v *Verifier) pair(ctx context.Context) (*verifyPair, error) {
	settled, ok := v.enforcer.Settled()
	if !ok {
		return nil, errBusy
	}
	program, err := kernel.Read(ctx, v.kernel)
	if !v.enforcer.StillSettled(settled) || errors.Is(err, kernel.ErrChanging) {
		return nil, errBusy
	}
	if err != nil {
		return nil, err
	}
	return &verifyPair{program, settled.Meaning, VerifiedNode(&settled.Config)}, nil
}

func (p *verifyPair) pass() *verify.Pass {
	return verify.NewPass(p.program, p.meaning.Meaning(), p.node)
}

// now compares everything, as fast as it can. It waits while the node is busy, until ctx ends.
func (v *Verifier) now(ctx context.Context) (verify.Result, error) {
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
		pause.For(ctx, tryAgain/10)
	}
}

// Run compares until ctx ends, with less than a hundredth of a core.
func (v *Verifier) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		result, err := v.slowly(ctx)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errBusy):
			pause.For(ctx, tryAgain)
			continue
		default:
			v.report(result, v.enforcer.Refused(), err)
		}
		pause.For(ctx, betweenRuns)
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
		pause.For(ctx, restFactor*took)
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
	v.metrics.seconds.Observe(time.Since(begin).Seconds())
	v.metrics.work.Add(worked.Seconds())
	v.metrics.passes.Inc()
	return p.Result(), nil
}

// report reports what changed since the last comparison, while the kernel refuses so many objects.
func (v *Verifier) report(r verify.Result, refused int, err error) {
	v.metrics.differences.Set(float64(r.Total))
	unreadable := 0.0
	if err != nil {
		unreadable = 1
	}
	v.metrics.unreadable.Set(unreadable)
	state, note := "", ""
	switch {
	case err != nil:
		state, note = "RulesetUnreadable",
			"what the kernel does with pods' packets can't be judged: "+err.Error()
	case r.Total > 0:
		why := ""
		if refused > 0 {
			why = fmt.Sprintf(
				" (it refuses %d objects of the ruleset: see the Events RefusedByKernel)", refused)
		}
		state, note = "RulesetDiffers",
			fmt.Sprintf("the kernel does otherwise than the policies mean in %d cases%s: %s",
				r.Total, why, r.Differences[0])
	}
	if state == v.reported {
		return
	}
	v.reported = state
	if state == "" {
		v.log.Info("The kernel does what the policies mean again", "classes", r.Classes)
		v.events.Say("RulesetVerified", "the kernel does what the policies mean again")
		return
	}
	v.log.Info("The kernel doesn't do what the policies mean, or can't be read", "reason", state,
		"note", note)
	v.events.Warn(state, note)
}

// VerifyAnswer is what VerifyHandler answers.
type VerifyAnswer struct {
	// Error says why the table couldn't be verified; the rest is empty then.
	Error       string   `json:"error,omitempty"`
	Differences []string `json:"differences,omitempty"` // at most what verify keeps
	Total       int      `json:"total"`
	Classes     int      `json:"classes"` // of packets, that were compared
}

// VerifyHandler answers GET: what the kernel does otherwise than the policies mean, now.
func VerifyHandler(v *Verifier) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		result, err := v.now(r.Context())
		out := VerifyAnswer{Total: result.Total, Classes: result.Classes}
		if err != nil {
			out.Error = err.Error()
		}
		for _, d := range result.Differences {
			out.Differences = append(out.Differences, d.String())
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(out); err != nil {
			v.log.V(1).Info("Answering a question failed", "reason", err.Error())
		}
	})
}
