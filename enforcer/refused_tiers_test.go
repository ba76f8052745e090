package enforcer

import (
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
)

// TestRefusedDenialCloses: where the kernel refuses what a rule that denies looks up, the pods
// under its policy carry nothing, and are named with it. Others go on.
func TestRefusedDenialCloses(t *testing.T) {
	t.Parallel()
	cnp, err := cases.Case{ClusterPolicies: map[string]string{"guard": `{tier: Admin, priority: 0,
  subject: {pods: {namespaceSelector: {matchLabels: {env: dev}}, podSelector: {matchLabels: {app: db}}}},
  ingress: [{action: Deny, from: [{namespaces: {matchLabels: {env: none}}}]}]}`}}.
		RenderCluster(cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	w := newEnforcerWorld(t, table.Options{Own: true})
	w.run()
	w.Allowed(slices.Concat(dbByPod, dbByBlock, rest)...)
	set := func() { w.e.Update(func(m *Model) { m.SetPolicy(policy.ParseCluster(cnp[0])) }) }
	set()
	w.committed()
	w.Allowed(slices.Concat(dbByPod, dbByBlock, rest)...) // control: it denies nobody who is there

	w.e.Update(func(m *Model) { m.DeletePolicy(policy.Key{Name: "guard"}) })
	w.committed()
	w.spoil(func(o nft.Object) bool {
		return strings.HasPrefix(o.Set, "deny-pods/") && o.Element == nft.Element{}
	})
	set()
	refusal := <-w.refusals
	if len(refusal.Endpoints) != 1 || refusal.Endpoints[0].Pod.Name != "db" ||
		!slices.Equal(refusal.Policies, []policy.Key{{Name: "guard"}}) {
		t.Errorf("it names the pods %v and the policies %v", refusal.Endpoints, refusal.Policies)
	}
	w.Denied(slices.Concat(dbByPod, dbByBlock)...)
	w.Allowed(rest...)
	if w.e.Enforced(w.Hosts["dev/db"].Interface()) == nil {
		t.Error("dev/db counts as enforced")
	}

	w.spoil(nil)
	w.e.table.Retry()
	w.e.requestReadBack()
	w.until("the pod to be enforced", func() bool {
		return w.e.Enforced(w.Hosts["dev/db"].Interface()) == nil
	})
	w.Allowed(slices.Concat(dbByPod, dbByBlock, rest)...)
}
