package others

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/test/needkernel"
	"github.com/sluice-net/sluice/test/testnet"
)

// TestBridgeModuleComesAndGoes: the check says at each moment what packets do, while br_netfilter
// is unloaded under bridged pods and loaded again.
//
//nolint:paralleltest // it changes the kernel of all
func TestBridgeModuleComesAndGoes(t *testing.T) {
	const (
		off4 = "bridge cni0: the kernel module br_netfilter isn't loaded: IPv4 traffic between " +
			"pods of this node isn't seen; run `modprobe br_netfilter` and " +
			"`sysctl -w net.bridge.bridge-nf-call-iptables=1`"
		off6 = "bridge cni0: the kernel module br_netfilter isn't loaded: IPv6 traffic between " +
			"pods of this node isn't seen; run `modprobe br_netfilter` and " +
			"`sysctl -w net.bridge.bridge-nf-call-ip6tables=1`"
	)
	w := world{t: t, node: testnet.NewNode(t)}
	w.a = w.node.BridgedPod("a", netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("fd88::2"))
	w.b = w.node.BridgedPod("b", netip.MustParseAddr("10.88.0.3"), netip.MustParseAddr("fd88::3"))
	w.b.ServeTCP(servedPort)
	w.mustReach(familyIP, familyIP6)
	w.install(
		`table inet fw { chain f { type filter hook forward priority 0; meta l4proto tcp drop; } }`)
	says := func(want ...string) {
		t.Helper()
		if got := w.bypassing(bridgeCIDRs, ""); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	says()
	w.mustNotReach(familyIP, familyIP6)
	needkernel.Unload(t, "br_netfilter")
	says(off4, off6)
	w.mustReach(familyIP, familyIP6)
	needkernel.Module(t, "br_netfilter") // whose switches are on, as it comes
	says()
	w.mustNotReach(familyIP, familyIP6)
}
