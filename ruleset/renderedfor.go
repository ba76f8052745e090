package ruleset

import (
	"maps"
	"slices"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
)

// Origin is what an object of the ruleset was rendered for. Its lists are sorted.
type Origin struct {
	Policies  []policy.Key // whose rules need the object
	Endpoints []string     // IDs of those whose own chain or key it is
}

// Origin returns what an object was rendered for. It is empty for an object that every node has,
// such as a base chain, and for an unknown one.
func (r *Renderer) Origin(o nft.Object) Origin {
	return Origin{Policies: r.policiesOf(o), Endpoints: r.endpointsOf(o)}
}

func (r *Renderer) policiesOf(o nft.Object) []policy.Key {
	o.Set = r.byContent.nameOf(o.Set)
	found := map[policy.Key]bool{}
	for ref, rules := range r.rules {
		_, isPart := rules.parts[o.Chain]
		if isPart || o.Chain == policyChain(ref) || o.Set != "" && lookInto(rules.parts, o.Set) ||
			countsDenials(ref, rules.parts, o.Chain) {
			for _, k := range rules.policies {
				found[k] = true
			}
		}
	}
	for _, e := range r.endpoints {
		for _, p := range e.profiles {
			if p.name != o.Chain {
				continue
			}
			for _, k := range p.policies {
				found[k] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), policy.Key.Compare)
}

// lookInto reports whether rules look into a set.
func lookInto(parts map[string]renderedPart, set string) bool {
	for _, part := range parts {
		if _, found := slices.BinarySearch(part.sets, set); found {
			return true
		}
	}
	return false
}

// countsDenials reports whether a chain counts what one of the rules denies.
func countsDenials(ref policy.Ref, parts map[string]renderedPart, chain string) bool {
	return slices.ContainsFunc(parts[policyChain(ref)].denials, func(i int) bool {
		return chain == deniedByName(ref, i)
	})
}

func (r *Renderer) endpointsOf(o nft.Object) []string {
	var found []string
	for id, e := range r.endpoints {
		_, isKey := e.elements[dispatchKey{o.Set, o.Element}]
		if e.chains[o.Chain] != nil || isKey {
			found = append(found, id)
		}
	}
	slices.Sort(found)
	return found
}
