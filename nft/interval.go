package nft

import (
	"slices"
	"strings"
)

// A box is the range of an interval set's element, field by field, without padding: for every field
// the lowest and the highest value, both included. A set's boxes never overlap.
type box []span

type span struct{ lo, hi string }

// boxOf reads an element of a set with this key.
func boxOf(key []Field, e Element) box {
	b := make(box, 0, len(key))
	first, last := e.First, e.End()
	for _, f := range key {
		n := f.Words() * 4
		b = append(b, span{first[:f.Size()], last[:f.Size()]})
		first, last = first[n:], last[n:]
	}
	return b
}

// End is the inclusive end of the element's range.
func (e Element) End() string {
	if e.Last == "" {
		return e.First
	}
	return e.Last
}

// element is the reverse of boxOf.
func (b box) element(key []Field) Element {
	var first, last strings.Builder
	for i, f := range key {
		padding := strings.Repeat("\x00", f.Words()*4-f.Size())
		first.WriteString(b[i].lo + padding)
		last.WriteString(b[i].hi + padding)
	}
	return Element{First: first.String(), Last: last.String()}
}

// intersect returns what two boxes share.
func (b box) intersect(c box) (box, bool) {
	both := make(box, len(b))
	for i := range b {
		both[i] = span{max(b[i].lo, c[i].lo), min(b[i].hi, c[i].hi)}
		if both[i].lo > both[i].hi {
			return nil, false
		}
	}
	return both, true
}

// subtract returns b without c, as boxes that don't overlap: field by field, what lies below and
// above c, and then goes on with what is left.
func (b box) subtract(c box) []box {
	both, ok := b.intersect(c)
	if !ok {
		return []box{b}
	}
	var rest []box
	left := slices.Clone(b)
	for i := range left {
		if left[i].lo < both[i].lo {
			below := slices.Clone(left)
			below[i].hi = Step(both[i].lo, -1)
			rest = append(rest, below)
		}
		if both[i].hi < left[i].hi {
			above := slices.Clone(left)
			above[i].lo = Step(both[i].hi, 1)
			rest = append(rest, above)
		}
		left[i] = both[i]
	}
	return rest
}

// Step adds 1 or -1 to a number in network order. The caller knows that it doesn't overflow.
func Step(number string, by int) string {
	b := []byte(number)
	for i := len(b) - 1; i >= 0; i-- {
		b[i] += byte(by)
		if (by > 0 && b[i] != 0) || (by < 0 && b[i] != 0xff) {
			break
		}
	}
	return string(b)
}

// IsLast reports whether a number is the highest of its length. It compares bytes: functions for
// characters take invalid UTF-8 bytes for one another.
func IsLast(number string) bool {
	return strings.Count(number, "\xff") == len(number)
}

// shared returns what is both in leaving and in joining elements: ranges that change their shape
// but stay members. Neither list overlaps itself.
func shared(key []Field, leaving, joining []Element) []Element {
	var pieces []Element
	if len(key) != 1 {
		for _, l := range leaving {
			for _, j := range joining {
				if both, ok := boxOf(key, l).intersect(boxOf(key, j)); ok {
					pieces = append(pieces, both.element(key))
				}
			}
		}
		return pieces
	}
	slices.SortFunc(leaving, compareElements)
	slices.SortFunc(joining, compareElements)
	for l, j := 0, 0; l < len(leaving) && j < len(joining); {
		if both, ok := boxOf(key, leaving[l]).intersect(boxOf(key, joining[j])); ok {
			pieces = append(pieces, both.element(key))
		}
		if leaving[l].End() < joining[j].End() {
			l++
		} else {
			j++
		}
	}
	return pieces
}

// without returns what is in joining, but not in leaving elements.
func without(key []Field, joining, leaving []Element) []Element {
	var rest []Element
	for _, j := range joining {
		boxes := []box{boxOf(key, j)}
		for _, l := range leaving {
			cut := boxOf(key, l)
			var next []box
			for _, b := range boxes {
				next = append(next, b.subtract(cut)...)
			}
			boxes = next
		}
		for _, b := range boxes {
			rest = append(rest, b.element(key))
		}
	}
	return rest
}
