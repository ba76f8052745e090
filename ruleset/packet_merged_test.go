package ruleset_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/testnet"
)

// TestManyPoliciesOfOnePod: of many policies that select the same pods each allows its peers, by a
// rule that they share, until it is deleted.
func TestManyPoliciesOfOnePod(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{})
	const format = `{podSelector: {matchLabels: {app: db}},
		ingress: [{from: [%s], ports: [{port: 80}]}]}`
	specs := map[string]string{
		"dev/web":  fmt.Sprintf(format, `{podSelector: {matchLabels: {app: web}}}`),
		"dev/out":  fmt.Sprintf(format, `{ipBlock: {cidr: {{ip4 "out"}}/32}}`),
		"dev/out6": fmt.Sprintf(format, `{ipBlock: {cidr: "{{ip6 "out"}}/128"}}`),
	}
	w.SetPolicy(map[string]string{"dev/other-0": fmt.Sprintf(format,
		"{podSelector: {matchLabels: {app: other}}}")})
	w.Denied("dev/web > dev/db tcp/80", "out > dev/db tcp/80") // the control
	for i := range 10 {
		specs[fmt.Sprintf("dev/other-%d", i)] = fmt.Sprintf(format,
			fmt.Sprintf("{podSelector: {matchLabels: {app: other-%d}}}", i))
	}
	w.SetPolicy(specs)
	w.Allowed("dev/web > dev/db tcp/80", "out > dev/db tcp/80")
	w.Denied("dev/web > dev/db tcp/81", "out2 > dev/db tcp/80")

	listing := w.Node.Nft("list", "table", "inet", "sluice")
	for what, want := range map[string]int{
		"chain policies/dev/app_db/ingress": 1, "chain policy/": 0,
		"dev/other-0 rule 0 and 10 more: ingress peers of namespace dev: app=db, TCP 80": 2,
	} {
		if got := strings.Count(listing, what); got != want {
			t.Errorf("the listing has %q %d times, want %d:\n%s", what, got, want, listing)
		}
	}
	other := testnet.NewNode(t)
	other.NftInput(listing)
	if again := other.Nft("list", "table", "inet", "sluice"); again != listing {
		t.Errorf("loaded elsewhere, the listing is another:\n%s", cmp.Diff(listing, again))
	}

	w.Cluster.DeletePolicy(policy.Key{Namespace: "dev", Name: "web"})
	w.Apply()
	w.Denied("dev/web > dev/db tcp/80")
	w.Allowed("out > dev/db tcp/80")
}
