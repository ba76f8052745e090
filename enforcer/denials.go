package enforcer

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
)

// Denials are what has been denied to a pod of this node in a direction.
type Denials struct {
	Namespace, Pod string
	Direction      policy.Direction
	nft.Tally
}

// denialCounts keeps what the kernel forgets: the last values of deleted chains, as long as their
// attachment is there. So a pod's counters go on when policies release it and isolate it again.
type denialCounts struct {
	mu    sync.Mutex
	ended map[string]nft.Tally // by chain
}

// countedDenials counts what has been denied, for each pod of this node and direction that is
// isolated, or was since the agent's start. The counters are the kernel's, so they are exact, and
// go on where an agent starts again. They cost one dump of the table's rules.
func (e *Enforcer) countedDenials(ctx context.Context) ([]Denials, error) {
	e.denials.mu.Lock()
	defer e.denials.mu.Unlock()
	now, ended, err := e.table.Tally(ctx)
	if err != nil {
		return nil, err
	}
	chains := e.deniedChains()
	e.denials.keep(ended, chains)
	sums := map[Denials]nft.Tally{} // a pod may have more attachments
	for name, pod := range chains {
		live, isLive := now[name]
		before, was := e.denials.ended[name]
		if isLive || was {
			sum := sums[pod]
			sums[pod] = nft.Tally{Packets: sum.Packets + live.Packets + before.Packets,
				Bytes: sum.Bytes + live.Bytes + before.Bytes}
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
	return out, nil
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
func (c *denialCounts) keep(ended map[string]nft.Tally, chains map[string]Denials) {
	if c.ended == nil {
		c.ended = map[string]nft.Tally{}
	}
	for name, last := range ended {
		sum := c.ended[name]
		c.ended[name] = nft.Tally{Packets: sum.Packets + last.Packets,
			Bytes: sum.Bytes + last.Bytes}
	}
	for name := range c.ended {
		if _, there := chains[name]; !there {
			delete(c.ended, name)
		}
	}
}

// deniedChains maps each chain that counts denials, and is or could be in the ruleset, to the pod
// whose denials it counts.
func (e *Enforcer) deniedChains() map[string]Denials {
	e.mu.Lock()
	defer e.mu.Unlock()
	denied := e.model.render.Denied()
	out := make(map[string]Denials, len(denied))
	for name, d := range denied {
		out[name] = Denials{Namespace: d.Pod.Namespace, Pod: d.Pod.Name, Direction: d.Direction}
	}
	return out
}
