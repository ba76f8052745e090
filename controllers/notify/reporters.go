package notify

import "hash/fnv"

// IsReporter reports whether a node is the one that reports on an object, where all nodes would say
// the same. Each node finds the same one: the highest by rendezvous hashing of the nodes' names. A
// node that doesn't know all nodes yet may also take itself for it.
func IsReporter(node string, nodes []string, object string) bool {
	return IsReporterAmong(node, nodes, object, 1)
}

// IsReporterAmong is the same where several nodes report, in case that one of them can't.
func IsReporterAmong(node string, nodes []string, object string, reporters int) bool {
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
	return before < reporters
}
