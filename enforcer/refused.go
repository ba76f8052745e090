package enforcer

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// This file sees to it that one object which the kernel refuses (a policy's chain, a set, a pod's
// chain or key) doesn't keep all others from their changes: the table is written without it, so
// that what needs it allows less.

// refusals is what the kernel doesn't take at the moment.
type refusals struct {
	why     map[nft.Object]error // belongs to the goroutine that commits
	told    map[nft.Object]bool  // guarded by the Enforcer's lock
	blocked map[string]error     // endpoints that carry nothing for that, by ID; likewise
}

// A Refusal tells of an object that the kernel refuses, and whom it concerns.
type Refusal struct {
	Object    nft.Object
	Err       error
	Policies  []policy.Key              // allow less than they say
	Endpoints []*cluster.EndpointPolicy // carry nothing
}

// mostRefusals is how often one write is tried with ever fewer objects.
const mostRefusals = 50

// makeDo goes on after a write that was refused because of certain objects, without these; it
// returns what was left out, and the error that is left. An object must be refused twice, the
// second time after the kernel was read back: the first time it may be somebody else's doing.
func (e *Enforcer) makeDo(ctx context.Context, err error) ([]nft.Object, error) {
	suspects := map[nft.Object]bool{}
	for range mostRefusals {
		var refused *nft.RefusedError
		if !errors.As(err, &refused) || len(refused.Objects) == 0 || ctx.Err() != nil {
			break
		}
		var again []nft.Object
		for _, o := range refused.Objects {
			if suspects[o] {
				again = append(again, o)
				e.refusals.note(o, refused)
			}
			suspects[o] = true
		}
		if len(again) > 0 {
			if leaveErr := e.table.LeaveOut(again...); leaveErr != nil {
				return nil, fmt.Errorf("%w; %w", err, leaveErr)
			}
		}
		err = e.table.Apply(ctx, nft.Patch{})
	}
	return e.table.LeftOut(), err
}

func (r *refusals) note(o nft.Object, err error) {
	if r.why == nil {
		r.why = map[nft.Object]error{}
	}
	r.why[o] = err
}

// noteRefused compares what is left out with what was, says whom it concerns, and tells what is
// new. It is called with the lock held, after a write.
func (e *Enforcer) noteRefused(left []nft.Object) {
	r := &e.refusals
	if len(left) == 0 && len(r.told) == 0 {
		return
	}
	r.blocked = map[string]error{}
	told := map[nft.Object]bool{}
	for _, o := range left {
		told[o] = true
		origin := e.model.render.Origin(o)
		refusal := Refusal{Object: o, Err: r.why[o], Policies: origin.Policies}
		for _, id := range origin.Endpoints {
			r.blocked[id] = r.why[o]
			e.pending[id] = true
			if ep, ok := e.model.Endpoint(id); ok {
				refusal.Endpoints = append(refusal.Endpoints, &ep)
			}
		}
		if r.told[o] {
			continue
		}
		e.opts.Log.Error(refusal.Err,
			"The kernel refuses a part of the ruleset; what needs it allows less", "object",
			o.String(), "policies", policy.List(refusal.Policies, ", "))
		if e.opts.OnRefused != nil {
			go e.opts.OnRefused(refusal)
		}
	}
	for o := range r.told {
		if !told[o] {
			delete(r.why, o)
			e.opts.Log.Info("The kernel no longer refuses a part of the ruleset, or it is gone",
				"object", o.String())
		}
	}
	r.told = told
	e.opts.Metrics.rulesetRefused.Set(float64(len(left)))
}
