package policy

import (
	"fmt"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What one policy may cost every node, whoever wrote it. An object of an API
// server has some megabytes at most, and all that is made of it has a size in
// proportion to that, except for what is here.
const (
	// maxCombinations bounds the clauses of port names: each name is looked up
	// together with each peer of its rule.
	maxCombinations = 10_000
	// maxProblems bounds what is told, each with an Event.
	maxProblems = 50
	// maxProblemText is how long a field's path, its value and what was expected
	// may be, in bytes: an Event takes 1024 in all.
	maxProblemText = 300
)

// limits counts what a policy has used up so far.
type limits struct {
	problems     []Problem
	more         int // problems that aren't listed
	combinations int
	subjectText  int // length of the subject's selector
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
	return append(l.problems, Problem{Field: spec.String(), Value: fmt.Sprintf("%d more fields", l.more), Expected: "values that can be used"})
}

// limitNames takes the port names of a rule away, which then allow nothing,
// where the policy has too many.
func (l *limits) limitNames(at *field.Path, r *Rule) {
	if len(r.Named) == 0 {
		return
	}
	const perText = 64 // a selector or ipBlock of many bytes counts as many peers
	cost := 0
	for _, peer := range r.Peers {
		cost += 1 + (len(peer.String())+l.subjectText)/perText
	}
	if r.AnyPeer {
		cost = 1 + l.subjectText/perText
	}
	cost *= len(r.Named)
	if l.combinations+cost > maxCombinations {
		l.problem(at, fmt.Sprintf("%d port names with %d peers", len(r.Named), len(r.Peers)),
			fmt.Sprintf("at most %d combinations of port names and peers in a policy, long peers counting more", maxCombinations))
		r.Named = nil
		return
	}
	l.combinations += cost
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
