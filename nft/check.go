package nft

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// differences lists in what the kernel's table isn't what is desired.
func differences(got *installed, want *Ruleset) []string {
	if !got.exists {
		return []string{"table " + TableName + " is missing"}
	}
	var list []string
	if got.asleep {
		list = append(list, "table "+TableName+" is dormant")
	}
	p := Diff(got.rules, want)
	for _, name := range slices.Sorted(maps.Keys(p.Chains)) {
		list = append(list, chainDifferences(name, got.rules.Chains[name], p.Chains[name])...)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Sets)) {
		list = append(list, setDifferences(name, got.rules.Sets[name], p.Sets[name])...)
	}
	for _, o := range got.others {
		list = append(list, o.String()+" isn't ours")
	}
	return list
}

// Repair reads the table back and makes it again what is desired. It returns in
// what it differed, as Check does, if that was somebody else's doing: where an
// earlier write has failed, nobody knows. The errors are Sync's.
func (t *Table) Repair(ctx context.Context) ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	got, goal, err := t.bothSides(ctx)
	if err != nil {
		return nil, err
	}
	list := differences(got, goal)
	if t.stale {
		return nil, t.sync(ctx)
	}
	if len(list) == 0 {
		return nil, nil
	}
	again, err := t.bring(ctx, got, goal)
	if err == nil && again {
		t.settle()
		err = t.sync(ctx)
	}
	return list, err
}

func chainDifferences(name string, got, want *Chain) []string {
	switch {
	case want == nil:
		return []string{fmt.Sprintf("chain %s isn't ours", name)}
	case got == nil:
		return []string{fmt.Sprintf("chain %s is missing", name)}
	}
	var list []string
	if !got.sameShape(want) {
		list = append(list, fmt.Sprintf("chain %s: is %q, not %q", name, baseString(got), baseString(want)))
	}
	for i := range max(len(got.Rules), len(want.Rules)) {
		switch {
		case i >= len(got.Rules):
			list = append(list, fmt.Sprintf("chain %s: rule %d is missing: %s", name, i+1, want.Rules[i]))
		case i >= len(want.Rules):
			list = append(list, fmt.Sprintf("chain %s: rule %d isn't ours: %s", name, i+1, got.Rules[i]))
		case !got.Rules[i].Equal(want.Rules[i]):
			list = append(list, fmt.Sprintf("chain %s: rule %d is %s, not %s", name, i+1, got.Rules[i], want.Rules[i]))
		}
	}
	return list
}

func baseString(c *Chain) string {
	if c.Base == nil {
		return "a regular chain"
	}
	return c.Base.String()
}

// maxListed is how many elements of a set are named.
const maxListed = 10

func setDifferences(name string, got *Set, sp *SetPatch) []string {
	switch {
	case sp == nil:
		return []string{fmt.Sprintf("set %s isn't ours", name)}
	case got == nil:
		return []string{fmt.Sprintf("set %s is missing", name)}
	case sp.Create != nil:
		return []string{fmt.Sprintf("set %s: its definition is another", name)}
	}
	var list []string
	add := func(format string, args ...any) {
		list = append(list, fmt.Sprintf("set %s: ", name)+fmt.Sprintf(format, args...))
	}
	for _, e := range sortedElements(sp.Put) {
		text := got.elementString(e, sp.Put[e])
		if old, there := got.Elements[e]; there {
			add("%s is %s", text, old)
		} else {
			add("%s is missing", text)
		}
	}
	for _, e := range sortedElements(sp.Remove) {
		add("%s isn't ours", got.elementString(e, got.Elements[e]))
	}
	if n := len(list); n > maxListed {
		list = append(list[:maxListed], fmt.Sprintf("set %s: and %d more", name, n-maxListed))
	}
	return list
}

// bothSides returns what the kernel has, and what it is to have.
func (t *Table) bothSides(ctx context.Context) (got *installed, goal *Ruleset, err error) {
	if goal, err = t.goal(); err != nil {
		return nil, nil, err
	}
	got, err = t.readBack(ctx, goal)
	return got, goal, err
}
