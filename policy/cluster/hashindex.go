package cluster

import (
	"hash/maphash"
	"iter"
)

// hashIndex finds numbers by what they stand for, and has nothing of that itself: a hash of each is
// enough for nearly all.
type hashIndex[K comparable, N ~uint32] struct {
	hash  func(K) uint32
	keyOf func(N) K // of each number in the index

	first map[uint32]N // by hash
	more  map[K]N      // those whose hash another had before
}

func newHashIndex[K comparable, N ~uint32](keyOf func(N) K) hashIndex[K, N] {
	seed := maphash.MakeSeed() // so that nobody can choose keys of one hash
	return hashIndex[K, N]{
		hash:  func(k K) uint32 { return uint32(maphash.Comparable(seed, k)) },
		keyOf: keyOf, first: map[uint32]N{}, more: map[K]N{},
	}
}

// find returns the number of a key.
func (x *hashIndex[K, N]) find(k K) (N, bool) {
	if n, ok := x.first[x.hash(k)]; ok && x.keyOf(n) == k {
		return n, true
	}
	n, ok := x.more[k]
	return n, ok
}

// add notes the key of a number, which keyOf knows and no other number has.
func (x *hashIndex[K, N]) add(k K, n N) {
	if _, taken := x.first[x.hash(k)]; taken {
		x.more[k] = n
	} else {
		x.first[x.hash(k)] = n
	}
}

// remove forgets a key that is there, of a number that keyOf still knows.
func (x *hashIndex[K, N]) remove(k K) {
	if n, ok := x.first[x.hash(k)]; ok && x.keyOf(n) == k {
		delete(x.first, x.hash(k))
	} else {
		delete(x.more, k)
	}
}

func (x *hashIndex[K, N]) size() int { return len(x.first) + len(x.more) }

// all yields every number, in no order.
func (x *hashIndex[K, N]) all() iter.Seq[N] {
	return func(yield func(N) bool) {
		for _, n := range x.first {
			if !yield(n) {
				return
			}
		}
		for _, n := range x.more {
			if !yield(n) {
				return
			}
		}
	}
}
