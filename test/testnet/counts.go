package testnet

import (
	"fmt"
	"strconv"
	"strings"
)

// Watch counts the packets that match each of some expressions of nft, before all chains of the
// node and behind those for what it forwards. A busy node loses packets before its chains: these
// aren't counted. The function that is returned reads the counts, as long as the node is there.
// Once for each node.
func (n *Node) Watch(matches ...string) func() (came, passed []uint64) {
	const table = "watch"
	var script strings.Builder
	fmt.Fprintf(&script, "add table inet %s\n", table)
	for _, chain := range []struct{ name, hook, priority string }{
		{"came", "prerouting", "-310"}, {"passed", "forward", "10"},
	} {
		fmt.Fprintf(&script, "add chain inet %s %s { type filter hook %s priority %s; }\n", table,
			chain.name, chain.hook, chain.priority)
		for _, match := range matches {
			fmt.Fprintf(&script, "add rule inet %s %s %s counter\n", table, chain.name, match)
		}
	}
	n.NftInput(script.String())
	return func() (came, passed []uint64) {
		n.t.Helper()
		var counts []uint64
		// in the order in which they were added: what comes meanwhile has passed rather than come
		list := n.Nft("list", "table", "inet", table)
		for _, part := range strings.Split(list, "counter packets ")[1:] {
			count, err := strconv.ParseUint(strings.Fields(part)[0], 10, 64)
			if err != nil {
				n.t.Fatalf("%v in %s", err, list)
			}
			counts = append(counts, count)
		}
		if len(counts) != 2*len(matches) {
			n.t.Fatalf("%d counters in %s", len(counts), list)
		}
		return counts[:len(matches)], counts[len(matches):]
	}
}
