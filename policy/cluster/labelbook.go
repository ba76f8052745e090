package cluster

import "github.com/sluice-net/sluice/selector"

// labelBook keeps one of all equal label sets that pods have, as the pods of a Deployment do, and
// counts the pods.
type labelBook struct {
	sets  []sharedLabels // by number
	free  []labelNumber
	index hashIndex[selector.LabelSet, labelNumber]
}

type labelNumber uint32

type sharedLabels struct {
	set  selector.LabelSet
	pods uint32 // 0: the number is free
}

func newLabelBook() *labelBook {
	b := new(labelBook)
	b.index = newHashIndex(func(n labelNumber) selector.LabelSet { return b.sets[n].set })
	return b
}

// take counts one pod more, and returns the set that is kept for it.
func (b *labelBook) take(s selector.LabelSet) selector.LabelSet {
	n, known := b.index.find(s)
	if !known {
		n = labelNumber(len(b.sets))
		if last := len(b.free) - 1; last >= 0 {
			n, b.free = b.free[last], b.free[:last]
		} else {
			b.sets = append(b.sets, sharedLabels{})
		}
		b.sets[n].set = s
		b.index.add(s, n)
	}
	b.sets[n].pods++
	return b.sets[n].set
}

// release counts one pod less. A set that nobody has is ignored.
func (b *labelBook) release(s selector.LabelSet) {
	n, known := b.index.find(s)
	if !known {
		return
	}
	if b.sets[n].pods--; b.sets[n].pods == 0 {
		b.index.remove(s)
		b.sets[n] = sharedLabels{}
		b.free = append(b.free, n)
	}
}

// size is how many sets are kept.
func (b *labelBook) size() int { return b.index.size() }
