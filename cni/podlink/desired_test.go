package podlink

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/link"
	"github.com/sluice-net/sluice/test/cnitest"
)

// The desired state in the words of a person.
func TestDesiredHostText(t *testing.T) {
	t.Parallel()
	a := cnitest.NewAttachment("c1", "pod-a", "10.1.0.2", "fd00:1::2")
	a.MTU = 1450
	a.Bandwidth = cni.Bandwidth{IngressRate: 8e6, IngressBurst: 8e5, EgressRate: 16e6,
		EgressBurst: 8}
	a.HostPorts = []cni.HostPort{{HostPort: 80, ContainerPort: 80, Protocol: "tcp"}}
	links := map[string]link.Found{a.Interface: {MTU: 1450, Conf4: []byte{}, Conf6: []byte{}}}
	in := hostInputs{attachments: []cni.Attachment{a},
		nodeAddrs: cnitest.Addrs("192.0.2.1", "2001:db8::1"), podCIDRs: podCIDRs}
	isLocal := func(addr netip.Addr) bool { return addr == cnitest.Node4 }
	got := desiredHost(in, map[string]phase{a.ID(): settled}, links, isLocal).String()
	want := strings.NewReplacer("POD", a.Interface, "IFB", shapeName(a.Interface), "HMAC",
		a.HostMAC().String(), "PMAC", a.PodMAC().String()).Replace(
		`sysctl -w net/ipv4/conf/POD/forwarding=1
sysctl -w net/ipv4/conf/POD/route_localnet=1
sysctl -w net/ipv6/conf/POD/accept_dad=0
sysctl -w net/ipv6/conf/POD/accept_ra=0
sysctl -w net/ipv6/conf/POD/addr_gen_mode=1
sysctl -w net/ipv6/conf/POD/disable_ipv6=0
ip link add IFB up type ifb
ip link set POD up address HMAC mtu 1450 arp off alias "dev/pod-a"
tc qdisc replace dev IFB root tbf rate 2000000bps burst 1468b limit 131072b
tc qdisc replace dev POD root tbf rate 1000000bps burst 100000b limit 131072b
tc qdisc add dev POD ingress
tc filter add dev POD ingress protocol all pref 1 u32 match u32 0 0 action mirred egress redirect dev IFB
ip addr replace fe80::1/64 dev POD nodad
ip neigh replace 10.1.0.2 lladdr PMAC dev POD nud permanent
ip neigh replace fd00:1::2 lladdr PMAC dev POD nud permanent
ip route replace unreachable 10.1.0.0/24 metric 1073741824 proto 83
ip route replace 10.1.0.2/32 dev POD proto 83 scope link src 192.0.2.1
ip route replace unreachable fd00:1::/64 metric 1073741824 proto 83
ip route replace fd00:1::2/128 dev POD proto 83
`)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
