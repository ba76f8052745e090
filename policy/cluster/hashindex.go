package cluster

import (
	"hash/maphash"
	"iter"
)

// hashIndex finds numbers by what they stand for, their keys. It keeps only the numbers, in 5 to 8
// bytes each while there are ever more, and asks for the keys that it has to compare. It is a hash
// table with open addressing: a number is in the first slot that was free from the one that its
// key's hash gives.
type hashIndex[K comparable, N ~uint32] struct {
	hash  func(K) uint32
	keyOf func(N) K // of each number in the index
	slots []uint32  // a number and 1; 0 in a free slot, of which there is at least one
	count int
}

const fewestSlots = 8

func newHashIndex[K comparable, N ~uint32](keyOf func(N) K) hashIndex[K, N] {
	seed := maphash.MakeSeed() // so that nobody can choose keys of one hash
	return hashIndex[K, N]{
		hash:  func(k K) uint32 { return uint32(maphash.Comparable(seed, k)) },
		keyOf: keyOf, slots: make([]uint32, fewestSlots),
	}
}

// find returns the number of a key.
func (x *hashIndex[K, N]) find(k K) (N, bool) {
	i, found := x.slot(k)
	if !found {
		return 0, false
	}
	return x.in(i), true
}

// add notes the key of a number. keyOf knows it, and no number has it yet.
func (x *hashIndex[K, N]) add(k K, n N) {
	if (x.count+1)*4 > len(x.slots)*3 {
		x.resize(len(x.slots) * 3 / 2)
	}
	x.put(k, uint32(n)+1)
	x.count++
}

// remove forgets a key, if it is there. keyOf still knows its number.
func (x *hashIndex[K, N]) remove(k K) {
	gap, found := x.slot(k)
	if !found {
		return
	}
	x.slots[gap] = 0
	x.count--
	// Who stands behind the gap may be there only because it was taken.
	for i := x.after(gap); x.slots[i] != 0; i = x.after(i) {
		if home := x.home(x.keyOf(x.in(i))); x.distance(home, i) >= x.distance(gap, i) {
			x.slots[gap], x.slots[i] = x.slots[i], 0
			gap = i
		}
	}
	if half := len(x.slots) / 2; half >= fewestSlots && x.count < half/2 {
		x.resize(half)
	}
}

func (x *hashIndex[K, N]) size() int { return x.count }

// all yields every number, in no order. The index must not change meanwhile.
func (x *hashIndex[K, N]) all() iter.Seq[N] {
	return func(yield func(N) bool) {
		for i, taken := range x.slots {
			if taken != 0 && !yield(x.in(i)) {
				return
			}
		}
	}
}

// slot is where the number of a key is, or would be.
func (x *hashIndex[K, N]) slot(k K) (i int, found bool) {
	for i = x.home(k); x.slots[i] != 0; i = x.after(i) {
		if x.keyOf(x.in(i)) == k {
			return i, true
		}
	}
	return i, false
}

// in is the number in a slot that isn't free.
func (x *hashIndex[K, N]) in(slot int) N { return N(x.slots[slot] - 1) }

// home is the slot that a key's hash gives.
func (x *hashIndex[K, N]) home(k K) int {
	return int(uint64(x.hash(k)) * uint64(len(x.slots)) >> 32)
}

// after is the next slot. The first comes after the last.
func (x *hashIndex[K, N]) after(slot int) int { return (slot + 1) % len(x.slots) }

// distance is how many slots it is from one to another, onwards.
func (x *hashIndex[K, N]) distance(from, to int) int {
	return (to - from + len(x.slots)) % len(x.slots)
}

func (x *hashIndex[K, N]) resize(slots int) {
	old := x.slots
	x.slots = make([]uint32, slots)
	for _, taken := range old {
		if taken != 0 {
			x.put(x.keyOf(N(taken-1)), taken)
		}
	}
}

// put fills the first free slot for a key.
func (x *hashIndex[K, N]) put(k K, taken uint32) {
	i := x.home(k)
	for x.slots[i] != 0 {
		i = x.after(i)
	}
	x.slots[i] = taken
}
