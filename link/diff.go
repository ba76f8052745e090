package link

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Op is one change to the kernel: the removal of what is there of a key, or else the next item in
// its place.
type Op struct {
	Now   []Item // what is there: more than one if somebody meddled
	Next  Item   // nil: only remove
	Group string // changes of a group stand on each other; empty: of none
}

// Device is the name of the link that is changed, or on which something is.
func (o Op) Device() string {
	if o.Next != nil {
		return o.Next.Device()
	}
	return o.Now[0].Device()
}

// String is the commands that a person would type.
func (o Op) String() string {
	var lines []string
	if o.Next == nil || len(o.Now) > 1 {
		for _, item := range o.Now {
			lines = append(lines, item.Remove())
		}
	}
	if o.Next != nil {
		lines = append(lines, o.Next.Add())
	}
	return strings.Join(lines, "\n")
}

// Commands is the commands of changes, a line each.
func Commands(ops []Op) string {
	var lines strings.Builder
	for _, op := range ops {
		lines.WriteString(op.String() + "\n")
	}
	return lines.String()
}

// Summary is the first few changes as commands, for a log.
func Summary(ops []Op) string {
	const most = 10
	var lines []string
	for _, op := range ops[:min(len(ops), most)] {
		lines = append(lines, op.String())
	}
	if more := len(ops) - most; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}

// Diff is how to get from the actual to the desired state: first what is to be there, in the order
// of kinds, then all removals in the reverse order, so that nothing that only changes is missing
// for a moment. With a group for items, what is of none comes first, then one group after the
// other.
func Diff(desired, actual State, group func(Item) string) []Op {
	there, wanted := byKey(actual), byKey(desired)
	var changes, removals []Op
	for _, k := range slices.SortedFunc(maps.Keys(wanted), key.compare) {
		now, want := there[k], wanted[k][len(wanted[k])-1]
		if len(now) == 1 && now[0] == want {
			continue
		}
		op := Op{Now: now, Next: want}
		if group != nil {
			op.Group = group(want)
		}
		changes = append(changes, op)
	}
	for _, k := range slices.SortedFunc(maps.Keys(there), key.compareRemoved) {
		if wanted[k] == nil {
			removals = append(removals, Op{Now: there[k]})
		}
	}
	slices.SortStableFunc(changes, func(a, b Op) int { return cmp.Compare(a.Group, b.Group) })
	return append(changes, removals...)
}

type key struct {
	kind Kind
	of   string
}

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.kind, o.kind), cmp.Compare(k.of, o.of))
}

func (k key) compareRemoved(o key) int {
	return cmp.Or(cmp.Compare(o.kind, k.kind), cmp.Compare(k.of, o.of))
}

func byKey(s State) map[key][]Item {
	all := make(map[key][]Item, len(s))
	for _, item := range s {
		k := key{item.Kind(), item.Key()}
		if !slices.Contains(all[k], item) { // a dump can name an entry twice while a table grows
			all[k] = append(all[k], item)
		}
	}
	return all
}
