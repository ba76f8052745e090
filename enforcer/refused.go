package enforcer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// This file handles an object that the kernel refuses: a policy's chain, a set, a pod's chain or
// key. The table is written without it, so that others get their changes; what needs the object
// allows less. Pods that would be allowed more without it carry nothing.

// refusals are the objects that the kernel refuses at the moment.
type refusals struct {
	why      map[nft.Object]error // belongs to the goroutine that commits
	reported map[nft.Object]bool  // guarded by the Enforcer's lock
	blocked  map[string]error     // endpoints that carry nothing for that, by ID; likewise
}

// A Refusal is an object that the kernel refuses, with the policies and pods that it concerns.
type Refusal struct {
	Object    nft.Object
	Err       error
	Policies  []policy.Key              // allow less than they say
	Endpoints []*cluster.EndpointPolicy // carry nothing
}

// mostRefusals bounds the tries of one write, each with fewer objects.
const mostRefusals = 50

// applyWithoutRefused repeats a refused write without the objects that the kernel refused. It
// returns what was left out, and the error that remains. An object is left out once it was refused
// twice, the second time after the kernel was read back: another program can cause the first
// refusal.
func (e *Enforcer) applyWithoutRefused(ctx context.Context, err error) ([]nft.Object, error) {
	refusedOnce := map[nft.Object]bool{}
	for range mostRefusals {
		var refused *nft.RefusedError
		if !errors.As(err, &refused) || len(refused.Objects) == 0 || ctx.Err() != nil {
			break
		}
		var again []nft.Object
		for _, o := range refused.Objects {
			if refusedOnce[o] {
				again = append(again, o)
				e.refusals.note(o, refused)
			}
			refusedOnce[o] = true
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

// noteRefused compares what is left out now with what was left out before, finds the policies and
// pods that it concerns, and reports what is new. It is called with the lock held, after a write.
func (e *Enforcer) noteRefused(left []nft.Object) {
	r := &e.refusals
	if len(left) == 0 && len(r.reported) == 0 {
		return
	}
	r.blocked = map[string]error{}
	reported := map[nft.Object]bool{}
	closed := e.closedEndpoints(left)
	for _, o := range left {
		reported[o] = true
		origin := e.model.render.Origin(o)
		refusal := Refusal{Object: o, Err: r.why[o], Policies: origin.Policies}
		if len(origin.Endpoints) == 0 {
			origin.Endpoints = closed
		}
		for _, id := range origin.Endpoints {
			r.blocked[id] = r.why[o]
			e.pending[id] = true
			if ep, ok := e.model.Endpoint(id); ok {
				refusal.Endpoints = append(refusal.Endpoints, &ep)
			}
		}
		if r.reported[o] {
			continue
		}
		e.opts.Log.Error(refusal.Err,
			"The kernel refuses a part of the ruleset; what needs it allows less", "object",
			o.String(), "policies", policy.List(refusal.Policies, ", "))
		if e.opts.OnRefused != nil {
			go e.opts.OnRefused(refusal)
		}
	}
	for o := range r.reported {
		if !reported[o] {
			delete(r.why, o)
			e.opts.Log.Info("The kernel no longer refuses a part of the ruleset, or it is gone",
				"object", o.String())
		}
	}
	r.reported = reported
	e.opts.Metrics.rulesetRefused.Set(float64(len(left)))
}

// closedEndpoints are those that carry nothing because of objects that aren't their own: without
// these, more would be allowed.
func (e *Enforcer) closedEndpoints(left []nft.Object) (out []string) {
	own := map[string]bool{}
	for _, o := range left {
		for _, id := range e.model.render.Origin(o).Endpoints {
			own[id] = true
		}
	}
	for _, key := range e.table.Closed() {
		for _, id := range e.model.render.Origin(key).Endpoints {
			if !own[id] && !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out
}
