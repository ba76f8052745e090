package enforcer

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
)

// Denials are what has been denied to a pod of this node in a direction.
type Denials struct {
	Namespace, Pod string
	Direction      policy.Direction
	nft.Tally
}

// RuleDenials are what a rule of a ClusterNetworkPolicy has denied to pods of this node.
type RuleDenials struct {
	ruleset.DeniedBy
	nft.Tally
}

// denialCounts keeps what the kernel forgets: the last values of deleted chains, as long as their
// attachment is there. So a pod's counters go on when policies release it and isolate it again.
type denialCounts struct {
	mu    sync.Mutex
	ended map[string]nft.Tally // by chain
}

// countedDenials counts what has been denied by isolation, for each pod of this node and direction
// that is isolated, or was since the agent's start, and apart from that what each rule of a
// ClusterNetworkPolicy denied. The counters are the kernel's, so they are exact, and
// go on where an agent starts again. They cost one dump of the table's rules.
func (e *Enforcer) countedDenials(ctx context.Context) ([]Denials, []RuleDenials, error) {
	e.denials.mu.Lock()
	defer e.denials.mu.Unlock()
	now, ended, err := e.table.Tally(ctx)
	if err != nil {
		return nil, nil, err
	}
	chains := e.deniedChains()
	e.denials.keep(ended, chains)
	sums := map[Denials]nft.Tally{} // a pod may have more attachments
	var byRules []RuleDenials
	for name, of := range chains {
		live, isLive := now[name]
		before, was := e.denials.ended[name]
		switch {
		case !isLive && !was:
		case of.byRule:
			byRules = append(byRules, RuleDenials{of.rule, add(live, before)})
		default:
			sums[of.pod] = add(sums[of.pod], add(live, before))
		}
	}
	out := make([]Denials, 0, len(sums))
	for pod, sum := range sums {
		pod.Tally = sum
		out = append(out, pod)
	}
	slices.SortFunc(out, func(a, b Denials) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod),
			cmp.Compare(a.Direction, b.Direction))
	})
	slices.SortFunc(byRules, func(a, b RuleDenials) int {
		return cmp.Or(a.Policy.Compare(b.Policy), cmp.Compare(a.Direction, b.Direction),
			cmp.Compare(a.Rule, b.Rule))
	})
	return out, byRules, nil
}

func add(a, b nft.Tally) nft.Tally {
	return nft.Tally{Packets: a.Packets + b.Packets, Bytes: a.Bytes + b.Bytes}
}

// keepDenials notes the last values of chains that a commit has deleted.
func (e *Enforcer) keepDenials() {
	e.denials.mu.Lock()
	defer e.denials.mu.Unlock()
	if ended := e.table.TakeEnded(); len(ended) > 0 {
		e.denials.keep(ended, e.deniedChains())
	}
}

// keep adds last values, and forgets those of attachments that are gone.
func (c *denialCounts) keep(ended map[string]nft.Tally, chains map[string]countedBy) {
	if c.ended == nil {
		c.ended = map[string]nft.Tally{}
	}
	for name, last := range ended {
		c.ended[name] = add(c.ended[name], last)
	}
	for name := range c.ended {
		if _, there := chains[name]; !there {
			delete(c.ended, name)
		}
	}
}

// countedBy is what a chain counts: a pod's denials, or a rule's.
type countedBy struct {
	pod    Denials
	rule   ruleset.DeniedBy
	byRule bool
}

// deniedChains maps each chain that counts denials, and is or could be in the ruleset, to whose
// denials it counts.
func (e *Enforcer) deniedChains() map[string]countedBy {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]countedBy{}
	for name, d := range e.model.render.Denied() {
		out[name] = countedBy{pod: Denials{Namespace: d.Pod.Namespace, Pod: d.Pod.Name,
			Direction: d.Direction}}
	}
	for name, d := range e.model.render.DeniedBy() {
		out[name] = countedBy{rule: d, byRule: true}
	}
	return out
}
