package notify

import "hash/fnv"

// Tells reports whether a node is the one that tells of an object what all nodes would say alike.
// Each node finds the same one: the highest by rendezvous hashing of the nodes' names. One that
// doesn't know all nodes yet may take itself for it as well.
func Tells(node string, nodes []string, object string) bool {
	return TellsAmong(node, nodes, object, 1)
}

// TellsAmong reports the same where several nodes tell, in case that one of them can't.
func TellsAmong(node string, nodes []string, object string, tellers int) bool {
	rank := func(name string) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(object + "\x00" + name))
		return h.Sum64()
	}
	own, before := rank(node), 0
	for _, other := range nodes {
		if r := rank(other); other != node && (r > own || r == own && other > node) {
			before++
		}
	}
	return before < tellers
}
