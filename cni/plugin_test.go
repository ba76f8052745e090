package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/google/go-cmp/cmp"
)

// TestAddDel is a pod's life: its policy first, then its link; it talks at once; nothing is left.
func TestAddDel(t *testing.T) {
	t.Parallel()
	n := newNode(t, healing)
	n.server.SetMTU(1450)
	a := n.newPod("c1", "pod-a")
	n.enforcer.setAttach(func(context.Context, Attachment) error {
		if host, pod := n.hostLinks(), podLinks(t, a.netns); len(host)+len(pod) > 0 {
			return fmt.Errorf("links before the policy: %v, %v", host, pod)
		}
		return nil
	})
	got, err := json.Marshal(a.mustAdd())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cniVersion":"1.1.0",` +
		`"interfaces":[{"name":"slupbcb64b37750","mac":"a2:1f:d2:d3:5f:7c","mtu":1450},` +
		`{"name":"eth0","mac":"ea:93:8c:71:71:ad","mtu":1450,"sandbox":"` + a.args.Netns + `"}],` +
		`"ips":[{"interface":1,"address":"10.1.0.1/32","gateway":"169.254.1.1"},{"interface":1,"address":"fd00:1::1/128","gateway":"fe80::1"}],` +
		`"routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"},{"dst":"::/0","gw":"fe80::1"}]}`
	if diff := cmp.Diff(anyJSON(t, []byte(want)), anyJSON(t, got)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	n.expect("c1/eth0")
	n.enforcer.setDetach(func(string) error {
		if links, err := n.server.hostLinks(); err != nil || len(links) > 1 || len(links) == 1 && links[0].isUp {
			return fmt.Errorf("the address becomes free, and the links are %v (%w)", links, err)
		}
		return nil
	})
	a.mustDel()
	a.expectNothing()
	a.mustDel()
	a.expectNothing()
}

func anyJSON(t *testing.T, data []byte) (value any) {
	t.Helper()
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return value
}

// TestFirstPackets: the first connection right after ADD works, in every direction and both families.
func TestFirstPackets(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ podCIDRs []netip.Prefix }{
		"dual stack": {prefixes("10.1.0.0/24", "fd00:1::/64")},
		"IPv6 first": {prefixes("fd00:1::/64", "10.1.0.0/24")},
		"IPv4 only":  {prefixes("10.1.0.0/24")},
		"IPv6 only":  {prefixes("fd00:1::/64")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, healing)
			n.server.SetPodCIDRs(c.podCIDRs)
			serve(t, n.netns)
			var pods []*testPod
			for i := range 4 {
				p := n.newPod(fmt.Sprint("c", i), fmt.Sprint("pod-", i))
				serve(t, p.netns)
				result := p.mustAdd()
				if len(result.IPs) != len(c.podCIDRs) || !c.podCIDRs[0].Contains(p.addrs[0]) {
					t.Fatalf("pod %d has %v", i, p.addrs)
				}
				for f, addr := range p.addrs {
					to := func(addr netip.Addr) netip.AddrPort { return netip.AddrPortFrom(addr, testPort) }
					node := node4
					if addr.Is6() {
						node = node6
					}
					try := func(what string, from ns.NetNS, addr netip.Addr) {
						if err := connect(from, to(addr)); err != nil {
							t.Errorf("%s, %s: %v", what, addr, err)
						}
					}
					if i%2 == 0 {
						try("node to pod", n.netns, addr)
					} else {
						try("pod to older pod", p.netns, pods[i-1].addrs[f])
					}
					try("pod to node", p.netns, node)
					try("pod to itself", p.netns, addr)
					for _, other := range pods {
						try("pod to pod", other.netns, addr)
						try("pod to pod", p.netns, other.addrs[f])
					}
				}
				pods = append(pods, p)
			}
			// Had the link resolved anything, there would be entries that aren't permanent.
			for what, space := range map[string]ns.NetNS{"node": n.netns, "pod": pods[0].netns} {
				for _, line := range lines(t, space, "ip neigh") {
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
	a.mustAdd()
	for _, c := range []struct {
		netns   ns.NetNS
		command string
		want    string
	}{
		{n.netns, "ip -o link show slupbcb64b37750 | grep -o 'NOARP,UP\\|mtu 1450\\|state UP\\|a2:1f.* brd\\|alias.*'", "NOARP,UP\nmtu 1450\nstate UP\na2:1f:d2:d3:5f:7c brd\nalias dev/pod-a"},
		{n.netns, "ip -br addr show slupbcb64b37750 | awk '{print $3 $4}'", "fe80::1/64"},
		{n.netns, "ip -N route show dev slupbcb64b37750", "10.1.0.1 proto 83 scope 253 src 192.0.2.1"},
		{n.netns, "ip -6 -N route show dev slupbcb64b37750 | grep -v fe80", "fd00:1::1 proto 83 src 2001:db8::1 metric 1024 pref medium"},
		{n.netns, "ip neigh", "10.1.0.1 dev slupbcb64b37750 lladdr ea:93:8c:71:71:ad PERMANENT\nfd00:1::1 dev slupbcb64b37750 lladdr ea:93:8c:71:71:ad PERMANENT"},
		{n.netns, "cd /proc/sys/net/ipv6/conf/slupbcb64b37750; cat accept_ra accept_dad addr_gen_mode", "0\n0\n1"},
		{a.netns, "ip -o link show eth0 | grep -o 'BROADCAST,MULTICAST,UP\\|mtu 1450\\|state UP\\|ea:93.* brd'", "BROADCAST,MULTICAST,UP\nmtu 1450\nstate UP\nea:93:8c:71:71:ad brd"},
		{a.netns, "ip -o addr show dev eth0 scope global | awk '{print $4}'", "10.1.0.1/32\nfd00:1::1/128"},
		{a.netns, "ip route", "default via 169.254.1.1 dev eth0 onlink"},
		{a.netns, "ip -6 route show default", "default via fe80::1 dev eth0 metric 1024 onlink pref medium"},
		{a.netns, "ip neigh", "169.254.1.1 dev eth0 lladdr a2:1f:d2:d3:5f:7c PERMANENT\nfe80::1 dev eth0 lladdr a2:1f:d2:d3:5f:7c PERMANENT"},
	} {
		if got := strings.Join(lines(t, c.netns, c.command), "\n"); got != c.want {
			t.Errorf("%s\n%s\n--- want\n%s", c.command, got, c.want)
		}
	}
}

func TestNodeAddressThatIsNotThere(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.server.SetNodeAddresses(addrs("198.51.100.1", "2001:db8::99"))
	a := n.newPod("c1", "pod-a")
	serve(t, a.netns)
	a.mustAdd()
	for _, addr := range a.addrs {
		if err := connect(n.netns, netip.AddrPortFrom(addr, testPort)); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestIPv6TurnedOffInThePod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.newPod("c1", "pod-a")
	serve(t, a.netns)
	lines(t, a.netns, "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6")
	a.mustAdd()
	if err := connect(n.netns, netip.AddrPortFrom(a.addrs[1], testPort)); err != nil {
		t.Error(err)
	}
}

// TestAddTwice: the second ADD replaces the link, with the same addresses.
func TestAddTwice(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.newPod("c1", "pod-a")
	serve(t, a.netns)
	first, second := a.mustAdd(), a.mustAdd()
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("first and second result:\n%s", diff)
	}
	for _, addr := range a.addrs {
		if err := connect(n.netns, netip.AddrPortFrom(addr, testPort)); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	n.expect("c1/eth0")
}
