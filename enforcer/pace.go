package enforcer

import (
	"time"

	"github.com/sluice-net/sluice/policy/cluster"
)

// pace bounds the members of sets in one commit, so that no tenant's change waits long behind
// another's: a commit can't be interrupted, and its time depends on the machine and on what the
// table holds already. It is for cluster.Cluster.TakeSome.
type pace struct{ budget int }

// commitGoal is how long a commit may take while there is more to do.
const commitGoal = 40 * time.Millisecond

// Budgets, in members of sets. The smallest is some rules.
const firstPace, slowestPace, fastestPace = 8 << 10, 512, 512 << 10

// next returns the budget of the next commit. The first commit has everything: no change waits for
// it yet.
func (p *pace) next(first bool) int {
	if first {
		return cluster.Everything
	}
	if p.budget == 0 {
		p.budget = firstPace
	}
	return p.budget
}

// note takes in how long the last commit took, and whether there was more to do.
func (p *pace) note(took time.Duration, more bool) {
	switch {
	case took > commitGoal:
		p.budget = max(p.budget/2, slowestPace)
	case more && took < commitGoal/2:
		p.budget = min(p.budget*2, fastestPace)
	}
}
