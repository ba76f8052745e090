package cluster

import "github.com/sluice-net/sluice/selector"

// labelBook keeps one of all equal label sets that pods have, as the pods of a Deployment do, and
// counts the pods.
type labelBook map[selector.LabelSet]sharedLabels

type sharedLabels struct {
	set  selector.LabelSet
	pods int
}

// take counts one pod more, and returns the set that is kept for it.
func (b labelBook) take(s selector.LabelSet) selector.LabelSet {
	shared, ok := b[s]
	if !ok {
		shared.set = s
	}
	shared.pods++
	b[shared.set] = shared // not s, which would become the key
	return shared.set
}

// release counts one pod less.
func (b labelBook) release(s selector.LabelSet) {
	shared := b[s]
	if shared.pods--; shared.pods > 0 {
		b[shared.set] = shared
	} else {
		delete(b, s)
	}
}
