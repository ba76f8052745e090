package bench

import (
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// takenOut is what is missing of Sluice's table: the rules of a chain that have a text, or the
// whole chain, where it is empty.
type takenOut struct{ chain, rules string }

// The base chains; those of host ports have a version of their own.
var (
	origin, input   = packetworld.BaseChain("origin"), packetworld.BaseChain("input")
	egress, ingress = packetworld.BaseChain("egress"), packetworld.BaseChain("ingress")

	forwardChains = []takenOut{{egress, ""}, {ingress, ""}}
	natChains     = []takenOut{{"host-ports/2", ""}, {"own-host-ports/2", ""},
		{packetworld.BaseChain("masquerade"), ""}}
)

// sluiceWithout is the way through Sluice's pod network, with policies, and without a part of the
// ruleset on both nodes.
func sluiceWithout(b *testing.B, p part) way {
	b.Helper()
	w, nodes := sluiceStopped(b, p.name, vxlan)
	for _, node := range nodes {
		for _, out := range p.out {
			out.from(b, node)
		}
	}
	return w
}

// sluiceStopped is the way through Sluice's pod network, with policies. Its agents have ended, as
// they would repair what is changed.
func sluiceStopped(b *testing.B, name, backend string) (way, cable) {
	b.Helper()
	c := newCable(b)
	w, agents := c.sluice(b, name, backend, true)
	for _, a := range agents {
		a.stop()
	}
	return w, c
}

var ruleHandle = regexp.MustCompile(`# handle (\d+)$`)

func (o takenOut) from(b *testing.B, node *testnet.Node) {
	b.Helper()
	if o.rules == "" {
		node.Nft("delete", "chain", "inet", "sluice", o.chain)
		return
	}
	found := false
	for line := range strings.Lines(node.Nft("-a", "list", "chain", "inet", "sluice", o.chain)) {
		line = strings.TrimSpace(line)
		handle := ruleHandle.FindStringSubmatch(line)
		if handle != nil && strings.Contains(line, o.rules) {
			node.Nft("delete", "rule", "inet", "sluice", o.chain, "handle", handle[1])
			found = true
		}
	}
	if !found {
		b.Fatalf("chain %s has no rule with %q", o.chain, o.rules)
	}
}
