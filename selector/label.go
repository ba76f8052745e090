package selector

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Op is the operator of a [Requirement], spelled as in the Kubernetes API
// (metav1.LabelSelectorOperator).
type Op string

// The operators of a Requirement.
const (
	In           Op = "In"           // the key is there, with one of the values
	NotIn        Op = "NotIn"        // the key is absent, or has none of the values
	Exists       Op = "Exists"       // the key is there, with any value
	DoesNotExist Op = "DoesNotExist" // the key is absent
)

// Requirement is one condition on the labels of an object. Exists and DoesNotExist ignore Values.
// An operator that is none of the four matches nothing, and neither does In without values.
type Requirement struct {
	Key    string
	Op     Op
	Values []string
}

// matches reports whether the labels meet the requirement.
func (r Requirement) matches(labels LabelSet) bool {
	value, found := labels.Get(r.Key)
	switch r.Op {
	case In:
		return found && slices.Contains(r.Values, value)
	case NotIn:
		return !found || !slices.Contains(r.Values, value)
	case Exists:
		return found
	case DoesNotExist:
		return !found
	default:
		return false
	}
}

// canonical returns the requirement with sorted, distinct values of its own, and none where the
// operator ignores them.
func (r Requirement) canonical() Requirement {
	if r.Op == Exists || r.Op == DoesNotExist || len(r.Values) == 0 {
		return Requirement{Key: r.Key, Op: r.Op}
	}
	values := slices.Sorted(slices.Values(r.Values))
	return Requirement{Key: r.Key, Op: r.Op, Values: slices.Compact(values)}
}

// compare orders requirements by key, then operator, then values.
func (r Requirement) compare(o Requirement) int {
	return cmp.Or(
		cmp.Compare(r.Key, o.Key),
		cmp.Compare(r.Op, o.Op),
		slices.Compare(r.Values, o.Values),
	)
}

// Labels is a label selector: all requirements must hold, so an empty one matches every object.
type Labels []Requirement

// Matches reports whether an object with these labels is selected. NotIn and DoesNotExist match
// objects that don't have the key.
func (l Labels) Matches(labels LabelSet) bool {
	for i := range l {
		if !l[i].matches(labels) {
			return false
		}
	}
	return true
}

// Canonical returns the same selector with requirements and values sorted and without duplicates.
// The result is nil when l is empty; it shares no memory with l, and l isn't modified.
func (l Labels) Canonical() Labels {
	if len(l) == 0 {
		return nil
	}
	out := make(Labels, len(l))
	for i, r := range l {
		out[i] = r.canonical()
	}
	slices.SortFunc(out, Requirement.compare)
	return slices.CompactFunc(out, func(a, b Requirement) bool { return a.compare(b) == 0 })
}

// String writes the canonical selector as text, for example
//
//	app=web, tier in (a, b), !x, y notin (z), has k
//
// but sorted by key, and "all" for the empty selector. Ambiguous text is quoted as in Go, so that
// two selectors have the same text only if they are the same canonical selector.
func (l Labels) String() string {
	if len(l) == 0 {
		return "all"
	}
	var b strings.Builder
	for i, r := range l.Canonical() {
		if i > 0 {
			b.WriteString(", ")
		}
		r.write(&b)
	}
	return b.String()
}

// write appends the text of one canonical requirement.
func (r Requirement) write(b *strings.Builder) {
	switch {
	case r.Op == Exists:
		b.WriteString("has ")
		b.WriteString(word(r.Key))
	case r.Op == DoesNotExist:
		b.WriteString("!")
		b.WriteString(word(r.Key))
	case r.Op == In && len(r.Values) == 1:
		b.WriteString(word(r.Key))
		b.WriteString("=")
		b.WriteString(word(r.Values[0]))
	default:
		b.WriteString(word(r.Key))
		b.WriteString(" " + r.Op.word() + " (")
		for i, v := range r.Values {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(word(v))
		}
		b.WriteString(")")
	}
}

// word is how an operator with a list of values is written.
func (o Op) word() string {
	switch o {
	case In:
		return "in"
	case NotIn:
		return "notin"
	default:
		return strconv.Quote(string(o))
	}
}

// word returns s as it is if it can't be taken for anything else, or quoted. What the API allows in
// keys, values and names stays bare, except for the empty value and the words of the notation
// itself.
func word(s string) string {
	switch s {
	case "", "in", "notin", "has", "all":
		return strconv.Quote(s)
	}
	for i := range len(s) {
		if !isBare(s[i]) {
			return strconv.Quote(s)
		}
	}
	return s
}

// isBare reports whether c may stand in an unquoted word.
func isBare(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '_' || c == '.' || c == '/'
}
