package ruleset_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/testnet"
)

// TestFloodWhileNodesComeAndGo: a Node whose tunnel address lies in a policy's ipBlock joins and
// leaves, again and again, so that what is in the block changes. The block excepts one host, right
// behind an address that joins and leaves, of whose packets none passes; of another's, which are
// allowed throughout, none is lost.
//
// If the set of the block changed in place, kernels with the bug interval-sets of docs/kernels.md
// would let some pass.
func TestFloodWhileNodesComeAndGo(t *testing.T) {
	testnet.NeedTwoProcessors(t)
	w := newPacketWorld(t, ruleset.Config{}) // it wants both cores: not parallel
	w.SetPolicy(map[string]string{"dev/p": `{podSelector: {matchLabels: {app: db}},
		ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.10/32]}}]}]}`})
	const port = 9000
	match := func(from string) string {
		return fmt.Sprintf("ip saddr %s udp dport %d", w.Addr(from, 4), port)
	}
	read := w.Node.Watch(match("out"), match("out2"))
	w.Hosts["dev/db"].Sink(testnet.UDP, port)
	to := netip.AddrPortFrom(w.Addr("dev/db", 4), port)
	denied := w.Hosts["out"].Flood(to, testnet.OnCPU(0))
	allowed := w.Hosts["out2"].Flood(to, testnet.OnCPU(0))
	changes := 30
	if os.Getenv("SLUICE_LONG") != "" {
		changes = 3000
	}
	for i := range changes {
		if i%2 == 0 {
			w.Cluster.SetNode(policy.Node{Name: "other",
				PodCIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32")}})
		} else {
			w.Cluster.DeleteNode("other")
		}
		patch := w.Render.Patch(w.Cluster, w.Cluster.Take())
		if patch.Empty() {
			t.Fatal("control: the block stays as it is")
		}
		if err := w.Table.Apply(context.Background(), patch); err != nil {
			t.Fatal(err)
		}
	}
	denied.Stop()
	allowed.Stop()
	came, passed := read()
	t.Logf("proof: %d changes of a block; %d packets denied, %d passed; %d allowed, %d passed",
		changes, came[0], passed[0], came[1], passed[1])
	if came[0] < uint64(changes) || passed[1] < uint64(changes) {
		t.Errorf("only %d and %d packets over %d changes", came[0], passed[1], changes)
	}
	if passed[0] > 0 {
		t.Errorf("%d of %d denied packets passed", passed[0], came[0])
	}
	if came[1] > passed[1]+1 {
		t.Errorf("of %d allowed packets %d passed", came[1], passed[1])
	}
}
