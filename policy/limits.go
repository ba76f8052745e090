package policy

import (
	"fmt"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What one policy may cost every node, whoever wrote it. An object of an API server has some
// megabytes at most, and all that is made of it has a size in proportion to that, except for what
// is here.
const (
	// maxProblems bounds what is told, each with an Event.
	maxProblems = 50
	// maxProblemText is how long a field's path, its value and what was expected may be, in bytes:
	// an Event takes 1024 in all.
	maxProblemText = 300
)

// MaxPolicyClauses bounds the clauses of one policy, both directions.
const MaxPolicyClauses = 1000

// limits counts what a policy has used up so far.
type limits struct {
	problems []Problem
	more     int // problems that aren't listed
}

func (l *limits) problem(at *field.Path, value any, expected string) {
	if len(l.problems) == maxProblems {
		l.more++
		return
	}
	l.problems = append(l.problems, Problem{
		Field: shorten(at.String()), Value: shorten(fmt.Sprint(value)), Expected: shorten(expected),
	})
}

// allProblems lists the problems, the last one for those that are too many.
func (l *limits) allProblems(spec *field.Path) []Problem {
	if l.more == 0 {
		return l.problems
	}
	return append(l.problems, Problem{Field: spec.String(),
		Value: fmt.Sprintf("%d more fields", l.more), Expected: "values that can be used"})
}

// shorten keeps the beginning of what is too long to be told.
func shorten(s string) string {
	if len(s) <= maxProblemText {
		return s
	}
	end := maxProblemText - len("... (1000000000 bytes)")
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return fmt.Sprintf("%s... (%d bytes)", s[:end], len(s))
}

// limitClauses leaves a policy that has too many clauses without rules.
func (l *limits) limitClauses(p *Policy) {
	n := p.Ingress.CountClauses() + p.Egress.CountClauses()
	if n <= MaxPolicyClauses {
		return
	}
	l.problem(specPath, fmt.Sprintf("%d rules, counted for each kind of peers and ports", n),
		fmt.Sprintf("at most %d of them in one policy; it isolates, and allows nothing",
			MaxPolicyClauses))
	*p = *p.Emptied()
}
