package wire

import (
	"fmt"
	"maps"
	"slices"

	"github.com/sluice-net/sluice/nft"
)

// Differences lists in what the kernel's table isn't what is wanted: a line for each object.
func (i *Installed) Differences(want *nft.Ruleset) []string {
	if !i.Exists {
		return []string{"table " + nft.TableName + " is missing"}
	}
	var list []string
	if i.Asleep {
		list = append(list, "table "+nft.TableName+" is dormant")
	}
	p := nft.Diff(i.Rules, want)
	for _, name := range slices.Sorted(maps.Keys(p.Chains)) {
		list = append(list, chainDifferences(name, i.Rules.Chains[name], p.Chains[name])...)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Sets)) {
		list = append(list, setDifferences(name, i.Rules.Sets[name], p.Sets[name])...)
	}
	for _, o := range i.Others {
		list = append(list, o.String()+" isn't ours")
	}
	return list
}

func chainDifferences(name string, got, want *nft.Chain) []string {
	switch {
	case want == nil:
		return []string{fmt.Sprintf("chain %s isn't ours", name)}
	case got == nil:
		return []string{fmt.Sprintf("chain %s is missing", name)}
	}
	var list []string
	if !got.SameShape(want) {
		list = append(list,
			fmt.Sprintf("chain %s: is %q, not %q", name, baseString(got), baseString(want)))
	}
	for i := range max(len(got.Rules), len(want.Rules)) {
		switch {
		case i >= len(got.Rules):
			list = append(list,
				fmt.Sprintf("chain %s: rule %d is missing: %s", name, i+1, want.Rules[i]))
		case i >= len(want.Rules):
			list = append(list,
				fmt.Sprintf("chain %s: rule %d isn't ours: %s", name, i+1, got.Rules[i]))
		case !got.Rules[i].Equal(want.Rules[i]):
			list = append(list, fmt.Sprintf("chain %s: rule %d is %s, not %s", name, i+1,
				got.Rules[i], want.Rules[i]))
		}
	}
	return list
}

func baseString(c *nft.Chain) string {
	if c.Base == nil {
		return "a regular chain"
	}
	return c.Base.String()
}

// maxListed is how many elements of a set are named.
const maxListed = 10

func setDifferences(name string, got *nft.Set, sp *nft.SetPatch) []string {
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
	for _, e := range nft.SortedElements(sp.Put) {
		text := got.ElementString(e, sp.Put[e])
		if old, there := got.Elements[e]; there {
			add("%s is %s", text, old)
		} else {
			add("%s is missing", text)
		}
	}
	for _, e := range nft.SortedElements(sp.Remove) {
		add("%s isn't ours", got.ElementString(e, got.Elements[e]))
	}
	if n := len(list); n > maxListed {
		list = append(list[:maxListed], fmt.Sprintf("set %s: and %d more", name, n-maxListed))
	}
	return list
}
