package plugin

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

func TestAnswerFields(t *testing.T) {
	t.Parallel()
	good := func() cni.AddAnswer {
		return cni.AddAnswer{
			Addresses: cnitest.Prefixes("10.1.0.1/32", "fd00::1/128"), Interface: "slup0123456789a",
			HostMAC: "02:00:00:00:00:01", PodMAC: "02:00:00:00:00:02", MTU: 1450,
			NodeAddresses: cnitest.Addrs("192.0.2.1"),
		}
	}
	if _, err := wiringOf(good(), "eth0", "dev/web"); err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]func(*cni.AddAnswer){
		"no address": func(a *cni.AddAnswer) { a.Addresses = nil },
		"a subnet":   func(a *cni.AddAnswer) { a.Addresses = cnitest.Prefixes("10.1.0.1/24") },
		"no prefix":  func(a *cni.AddAnswer) { a.Addresses = []netip.Prefix{{}} },
		"two of a family": func(a *cni.AddAnswer) {
			a.Addresses = cnitest.Prefixes("10.1.0.1/32", "10.1.0.2/32")
		},
		"link-local": func(a *cni.AddAnswer) {
			a.Addresses = cnitest.Prefixes("fe80::2/128")
		},
		"foreign link":     func(a *cni.AddAnswer) { a.Interface = "eth0" },
		"long link":        func(a *cni.AddAnswer) { a.Interface = "slup0123456789abcdef" },
		"path as link":     func(a *cni.AddAnswer) { a.Interface = "slup/../../../etc" },
		"no MAC":           func(a *cni.AddAnswer) { a.HostMAC = "" },
		"multicast MAC":    func(a *cni.AddAnswer) { a.PodMAC = "01:00:5e:00:00:01" },
		"long MAC":         func(a *cni.AddAnswer) { a.PodMAC = "02:00:00:00:00:00:00:01" },
		"negative MTU":     func(a *cni.AddAnswer) { a.MTU = -1 },
		"MTU too small":    func(a *cni.AddAnswer) { a.MTU = 1279 },
		"MTU too large":    func(a *cni.AddAnswer) { a.MTU = 65536 },
		"MTU of IPv4 only": func(a *cni.AddAnswer) { a.Addresses, a.MTU = a.Addresses[:1], 575 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := good()
			set(&a)
			if w, err := wiringOf(a, "eth0", ""); err == nil {
				t.Errorf("got %v", w)
			}
		})
	}
}

// TestUnusedAddressesAreUnreachable: from when the node's podCIDRs are known, also while no address
// can be given out.
func TestUnusedAddressesAreUnreachable(t *testing.T) {
	t.Parallel()
	n := newHealingNode(t)
	routes := func() string {
		return strings.Join(cnitest.Lines(t, n.NetNS, "ip -N route; ip -N -6 route"), "\n")
	}
	cnitest.Eventually(t, "routes for where addresses come from", func() bool {
		return strings.Contains(routes(), "7 10.1.0.0/24 proto 83")
	})
	n.server.SetPodCIDRs(nil)
	n.server.SetOwnPodCIDRs(cnitest.Prefixes("10.3.0.0/24", "fd00:3::/64"))
	cnitest.Eventually(t, "routes for the podCIDRs", func() bool {
		now := routes()
		return strings.Contains(now, "7 10.3.0.0/24 proto 83") &&
			strings.Contains(now, "7 fd00:3::/64") && !strings.Contains(now, "10.1.0.0/24")
	})
}
