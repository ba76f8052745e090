package table

import (
	"context"
	"maps"
	"slices"

	"github.com/sluice-net/sluice/nft"
)

// This file makes do without objects that the kernel refuses, so that one of them doesn't keep all
// others from their changes. What refers to it goes as well, in the direction that allows less:
//
//   - a key of a verdict map stays away: a packet without a key is dropped at the end of its base
//     chain;
//   - of a set that rules match only to accept, an element stays away, or those rules go; likewise
//     the jumps to a chain that does nothing but accept;
//   - a chain with any other rule that needs the object goes whole, and the chains that jump there,
//     down to the keys of verdict maps that lead there: they drop, see Closed.
//
// Whatever can't be left out so (base chains, maps, what rules of base chains refer to) still fails
// as a whole.

// LeaveOut makes do without objects: the next Apply writes the table without them. It stays so
// until a patch changes them, or Retry. The error says which can't be left out without allowing
// more; then none of them is.
func (t *Table) LeaveOut(objects ...nft.Object) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := maps.Clone(t.left)
	if left == nil {
		left = map[nft.Object]struct{}{}
	}
	for _, o := range objects {
		left[o] = struct{}{}
	}
	if _, err := nft.Without(t.desired, left); err != nil {
		return err
	}
	t.left, t.stale = left, true
	return nil
}

// Closed lists the keys of verdict maps that drop because of what is left out, sorted.
func (t *Table) Closed() []nft.Object {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.left) == 0 {
		return nil
	}
	left, err := nft.Without(t.desired, t.left)
	if err != nil {
		return nil // then nothing was written without them
	}
	return nft.Closed(t.desired, left)
}

// LeftOut lists what the Table makes do without, sorted.
func (t *Table) LeftOut() []nft.Object {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Keys(t.left), nft.CompareObjects)
}

// Retry has the next Apply try what was left out.
func (t *Table) Retry() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stale = t.stale || len(t.left) > 0
	t.left = nil
}

// goal is what shall be installed: what is desired without what is left out. In the latter case it
// is a copy.
func (t *Table) goal() (*nft.Ruleset, error) {
	if len(t.left) == 0 {
		return t.desired, nil
	}
	return nft.Without(t.desired, t.left)
}

// applyWithout is Apply where something is left out. Its cost follows the size of the table.
func (t *Table) applyWithout(ctx context.Context, p nft.Patch) error {
	before, err := t.goal()
	if err != nil {
		return err
	}
	t.desired.Merge(p)
	t.retryChanged(p)
	after, err := t.goal()
	if err != nil {
		t.stale = true
		return err
	}
	return t.carryOut(ctx, nft.Plan(before, nft.Diff(before, after)), nil)
}

// retryChanged has what a patch changes tried again, though it was left out.
func (t *Table) retryChanged(p nft.Patch) {
	maps.DeleteFunc(t.left, func(o nft.Object, _ struct{}) bool {
		if o.Chain != "" {
			_, changes := p.Chains[o.Chain]
			return changes
		}
		sp, changes := p.Sets[o.Set]
		if !changes || sp == nil || sp.Create != nil || o.Element == (nft.Element{}) {
			return changes
		}
		_, puts := sp.Put[o.Element]
		_, removes := sp.Remove[o.Element]
		return puts || removes
	})
}
