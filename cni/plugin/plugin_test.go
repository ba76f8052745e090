package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

// TestAddDel is a pod's life: its policy first, then its link; it talks at once; nothing is left.
func TestAddDel(t *testing.T) {
	t.Parallel()
	n := newHealingNode(t)
	n.server.SetMTU(1450)
	a := n.newPod("c1", "pod-a")
	n.Enforcer.SetAttach(func(context.Context, cni.Attachment) error {
		if host, pod := n.HostLinks(), cnitest.LinkNames(t, a.NetNS); len(host)+len(pod) > 0 {
			return fmt.Errorf("links before the policy: %v, %v", host, pod)
		}
		return nil
	})
	got, err := json.Marshal(a.MustAdd())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cniVersion":"1.1.0",` +
		`"interfaces":[{"name":"slupbcb64b37750","mac":"a2:1f:d2:d3:5f:7c","mtu":1450},` +
		`{"name":"eth0","mac":"ea:93:8c:71:71:ad","mtu":1450,"sandbox":"` + a.Args.Netns + `"}],` +
		`"ips":[{"interface":1,"address":"10.1.0.1/32","gateway":"169.254.1.1"},{"interface":1,"address":"fd00:1::1/128","gateway":"fe80::1"}],` +
		`"routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"},{"dst":"::/0","gw":"fe80::1"}]}`
	if diff := cmp.Diff(anyJSON(t, []byte(want)), anyJSON(t, got)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	n.Expect("c1/eth0")
	n.Enforcer.SetDetach(func(string) error {
		if links, err := n.podLinks(); err != nil || len(links) > 1 ||
			len(links) == 1 && links[0].IsUp {
			return fmt.Errorf("the address becomes free, and the links are %v (%w)", links, err)
		}
		return nil
	})
	a.MustDel()
	a.expectNothing()
	a.MustDel()
	a.expectNothing()
}

func anyJSON(t *testing.T, data []byte) (value any) {
	t.Helper()
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return value
}

// TestFirstPackets: the first connection right after ADD works, in every direction and both
// families.
func TestFirstPackets(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ podCIDRs []netip.Prefix }{
		"dual stack": {cnitest.Prefixes("10.1.0.0/24", "fd00:1::/64")},
		"IPv6 first": {cnitest.Prefixes("fd00:1::/64", "10.1.0.0/24")},
		"IPv4 only":  {cnitest.Prefixes("10.1.0.0/24")},
		"IPv6 only":  {cnitest.Prefixes("fd00:1::/64")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newHealingNode(t)
			n.server.SetPodCIDRs(c.podCIDRs)
			cnitest.Serve(t, n.NetNS)
			var pods []*testPod
			for i := range 4 {
				p := n.newPod(fmt.Sprint("c", i), fmt.Sprint("pod-", i))
				cnitest.Serve(t, p.NetNS)
				result := p.MustAdd()
				if len(result.IPs) != len(c.podCIDRs) || !c.podCIDRs[0].Contains(p.Addrs[0]) {
					t.Fatalf("pod %d has %v", i, p.Addrs)
				}
				for f, addr := range p.Addrs {
					to := func(addr netip.Addr) netip.AddrPort {
						return netip.AddrPortFrom(addr, cnitest.Port)
					}
					node := cnitest.Node4
					if addr.Is6() {
						node = cnitest.Node6
					}
					try := func(what string, from ns.NetNS, addr netip.Addr) {
						if err := cnitest.Connect(from, to(addr)); err != nil {
							t.Errorf("%s, %s: %v", what, addr, err)
						}
					}
					if i%2 == 0 {
						try("node to pod", n.NetNS, addr)
					} else {
						try("pod to older pod", p.NetNS, pods[i-1].Addrs[f])
					}
					try("pod to node", p.NetNS, node)
					try("pod to itself", p.NetNS, addr)
					for _, other := range pods {
						try("pod to pod", other.NetNS, addr)
						try("pod to pod", p.NetNS, other.Addrs[f])
					}
				}
				pods = append(pods, p)
			}
			// Had the link resolved anything, there would be entries that aren't permanent.
			for what, space := range map[string]ns.NetNS{"node": n.NetNS, "pod": pods[0].NetNS} {
				for _, line := range cnitest.Lines(t, space, "ip neigh") {
					if !strings.HasSuffix(line, " PERMANENT") {
						t.Errorf("the %s has asked for a neighbour: %s", what, line)
					}
				}
			}
		})
	}
}

// TestWhatIsThere compares both ends with what a person would type.
func TestWhatIsThere(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.server.SetMTU(1450)
	a := n.newPod("c1", "pod-a")
	a.MustAdd()
	for _, c := range []struct {
		netns   ns.NetNS
		command string
		want    string
	}{
		{n.NetNS, "ip -o link show slupbcb64b37750 | grep -o 'NOARP,UP\\|mtu 1450\\|state " +
			"UP\\|a2:1f.* brd\\|alias.*'",
			"NOARP,UP\nmtu 1450\nstate UP\na2:1f:d2:d3:5f:7c brd\nalias dev/pod-a"},
		{n.NetNS, "ip -br addr show slupbcb64b37750 | awk '{print $3 $4}'", "fe80::1/64"},
		{n.NetNS, "ip -N route show dev slupbcb64b37750",
			"10.1.0.1 proto 83 scope 253 src 192.0.2.1"},
		{n.NetNS, "ip -6 -N route show dev slupbcb64b37750 | grep -v fe80",
			"fd00:1::1 proto 83 src 2001:db8::1 metric 1024 pref medium"},
		{n.NetNS, "ip neigh", "10.1.0.1 dev slupbcb64b37750 lladdr ea:93:8c:71:71:ad " +
			"PERMANENT\nfd00:1::1 dev slupbcb64b37750 lladdr ea:93:8c:71:71:ad PERMANENT"},
		{n.NetNS,
			"cd /proc/sys/net/ipv6/conf/slupbcb64b37750; cat accept_ra accept_dad addr_gen_mode",
			"0\n0\n1"},
		{a.NetNS, "ip -o link show eth0 | grep -o 'BROADCAST,MULTICAST,UP\\|mtu 1450\\|state " +
			"UP\\|ea:93.* brd'",
			"BROADCAST,MULTICAST,UP\nmtu 1450\nstate UP\nea:93:8c:71:71:ad brd"},
		{a.NetNS, "ip -o addr show dev eth0 scope global | awk '{print $4}'",
			"10.1.0.1/32\nfd00:1::1/128"},
		{a.NetNS, "ip route", "default via 169.254.1.1 dev eth0 onlink"},
		{a.NetNS, "ip -6 route show default",
			"default via fe80::1 dev eth0 metric 1024 onlink pref medium"},
		{a.NetNS, "ip neigh", "169.254.1.1 dev eth0 lladdr a2:1f:d2:d3:5f:7c PERMANENT\nfe80::1 " +
			"dev eth0 lladdr a2:1f:d2:d3:5f:7c PERMANENT"},
	} {
		if got := strings.Join(cnitest.Lines(t, c.netns, c.command), "\n"); got != c.want {
			t.Errorf("%s\n%s\n--- want\n%s", c.command, got, c.want)
		}
	}
}

func TestNodeAddressThatIsNotThere(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.server.SetNodeAddresses(cnitest.Addrs("198.51.100.1", "2001:db8::99"))
	a := n.newPod("c1", "pod-a")
	cnitest.Serve(t, a.NetNS)
	a.MustAdd()
	for _, addr := range a.Addrs {
		if err := cnitest.Connect(n.NetNS, netip.AddrPortFrom(addr, cnitest.Port)); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestIPv6TurnedOffInThePod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.newPod("c1", "pod-a")
	cnitest.Serve(t, a.NetNS)
	cnitest.Lines(t, a.NetNS, "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; echo 1 > "+
		"/proc/sys/net/ipv6/conf/lo/disable_ipv6")
	a.MustAdd()
	if err := cnitest.Connect(n.NetNS, netip.AddrPortFrom(a.Addrs[1], cnitest.Port)); err != nil {
		t.Error(err)
	}
}

// TestAddTwice: the second ADD replaces the link, with the same addresses.
func TestAddTwice(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.newPod("c1", "pod-a")
	cnitest.Serve(t, a.NetNS)
	first, second := a.MustAdd(), a.MustAdd()
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("first and second result:\n%s", diff)
	}
	for _, addr := range a.Addrs {
		if err := cnitest.Connect(n.NetNS, netip.AddrPortFrom(addr, cnitest.Port)); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	n.Expect("c1/eth0")
}
