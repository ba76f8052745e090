package selector

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// postings finds pods by label: for every key and value, the pods that have it.
type postings map[string]*posting

// posting is the part of one label key.
type posting struct {
	pods   int // with the key, with any value
	values map[string]*podSet
}

// move files the pod under its new labels instead of its old ones. It touches only what differs.
func (ps postings) move(n Number, from, to LabelSet) {
	for key, value := range from.All() {
		if kept, found := to.Get(key); !found || kept != value {
			ps.remove(n, key, value)
		}
	}
	for key, value := range to.All() {
		if had, found := from.Get(key); !found || had != value {
			ps.add(n, key, value)
		}
	}
}

// add files the pod under one label.
func (ps postings) add(n Number, key, value string) {
	post := ps[key]
	if post == nil {
		post = &posting{values: make(map[string]*podSet)}
		ps[strings.Clone(key)] = post // as it is, it would keep its whole label set
	}
	set := post.values[value]
	if set == nil {
		set = new(podSet)
		post.values[strings.Clone(value)] = set
	}
	set.add(n)
	post.pods++
}

// remove takes the pod away from one label it is filed under.
func (ps postings) remove(n Number, key, value string) {
	post := ps[key]
	set := post.values[value]
	set.remove(n)
	if set.len() == 0 {
		delete(post.values, value)
	}
	if post.pods--; post.pods == 0 {
		delete(ps, key)
	}
}

// count returns how many pods meet a positive canonical requirement.
func (ps postings) count(r Requirement) int {
	post := ps[r.Key]
	if post == nil {
		return 0
	}
	if r.Op == Exists {
		return post.pods
	}
	n := 0
	for _, value := range r.Values {
		n += post.values[value].len()
	}
	return n
}

// all yields the pods that meet a positive canonical requirement, in any order.
func (ps postings) all(r Requirement) iter.Seq[Number] {
	return func(yield func(Number) bool) {
		post := ps[r.Key]
		if post == nil {
			return
		}
		values := slices.Values(r.Values)
		if r.Op == Exists {
			values = maps.Keys(post.values)
		}
		for value := range values {
			for n := range post.values[value].all() {
				if !yield(n) {
					return
				}
			}
		}
	}
}
