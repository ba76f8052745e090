package ruleset_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/ruleworld"
)

// TestNodeRewritesItsBlocksAlone: a Node that joins costs the sets of those ipBlocks, and the
// chains of those policies, that its tunnel address lies in; when it has left, all is as it was.
func TestNodeRewritesItsBlocksAlone(t *testing.T) {
	t.Parallel()
	w := ruleworld.New(t)
	for name, cidr := range map[string]string{"near": "198.18.0.0/24", "far": "198.18.1.0/24"} {
		np := ruleworld.MustDecode[networkingv1.NetworkPolicy](t, fmt.Sprintf(
			`{"metadata":{"namespace":"dev","name":%q},"spec":{"podSelector":{},"ingress":[
			{"from":[{"ipBlock":{"cidr":%q}}]}]}}`, name, cidr))
		w.Cluster.SetPolicy(policy.Parse(&np))
	}
	apply := func() nft.Patch {
		p := w.Render.Patch(w.Cluster, w.Cluster.Take())
		w.Have.Merge(p)
		return p
	}
	apply()
	before := w.Have.Clone()
	w.Cluster.SetNode(policy.Node{Name: "joins",
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("198.18.0.8/29")}})
	p := apply()
	chains := slices.Collect(maps.Keys(p.Chains))
	if len(chains) != 1 || !strings.HasPrefix(chains[0], "policy/dev/near/") {
		t.Errorf("the chains %v were written anew, want that of policy near", chains)
	}
	made, gone, elements := 0, 0, 0
	for name, sp := range p.Sets {
		switch {
		case !strings.HasPrefix(name, "block/198.18.0.0"):
			t.Errorf("set %s was touched", name)
		case sp == nil:
			gone++
		default:
			made, elements = made+1, elements+len(sp.Create.Elements)
		}
	}
	if made != 1 || gone != 1 || elements != 2 { // up to the address, and from behind it
		t.Errorf("%d sets made with %d elements, and %d gone: want 1 with 2, and 1", made,
			elements, gone)
	}
	w.Cluster.DeleteNode("joins")
	apply()
	if p := nft.Diff(before, w.Have); !p.Empty() {
		t.Errorf("after the Node has left: chains %v, sets %v differ", p.Chains, p.Sets)
	}
}
