package bench

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/test/testnet"
)

// way is where load goes: from a client to a server beyond a cable.
type way struct {
	name           string
	client, server place
	from, to       netip.Addr // of the client and of the server
}

// pods are a client, on the first node, and a server on the second.
type pods [2]*testnet.Host

// cable is two nodes, numbered 0 and 1, with a veth between them that is called eth0 on both.
type cable [2]*testnet.Node

const (
	underlayMTU = 1500
	tunnelMTU   = underlayMTU - 50 // VXLAN over IPv4
)

func underlay4(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, 77, byte(i + 1)}) }
func underlay6(i int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 15: byte(i + 1)})
}
func podCIDR4(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i + 1)}), 24)
}
func podCIDR6(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 7: byte(i + 1)}), 64)
}
func podAddr(p netip.Prefix) netip.Addr { return p.Addr().Next().Next() }

func newCable(b *testing.B) cable {
	b.Helper()
	c := cable{testnet.NewNode(b), testnet.NewNode(b)}
	run(b, c[0], "ip link add eth0 mtu %d type veth peer name eth0 mtu %[1]d netns %s", underlayMTU,
		c[1].Path())
	for i, node := range c {
		run(b, node,
			"ip link set eth0 up\nip addr add %s/24 dev eth0\nip addr add %s/64 dev eth0 nodad",
			underlay4(i), underlay6(i))
	}
	return c
}

// place is a network namespace to run commands in.
type place interface{ Do(func() error) error }

// run runs commands, one a line.
func run(b *testing.B, where place, commands string, args ...any) {
	b.Helper()
	for command := range strings.SplitSeq(fmt.Sprintf(commands, args...), "\n") {
		words := strings.Fields(command)
		must(b, where.Do(func() error {
			//nolint:gosec,noctx // ours, and it ends by itself
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", command, err, out)
			}
			return nil
		}))
	}
}

// nodes is the way from one node to the other.
func (c cable) nodes(name string) way {
	return way{name: name, client: c[0].Host(), server: c[1].Host(), from: underlay4(0),
		to: underlay4(1)}
}

// pods adds a pod to each node, and returns them and the way between them.
func (c cable) pods(name string) (way, pods) {
	var p pods
	for i, node := range c {
		p[i] = node.Pod(podName(i), podAddr(podCIDR4(i)), podAddr(podCIDR6(i)))
	}
	return way{name: name, client: p[0], server: p[1], from: p[0].Addr4(), to: p[1].Addr4()}, p
}

func podName(i int) string { return fmt.Sprintf("bench/%s", [...]string{"client", "server"}[i]) }

func (c cable) setMTU(b *testing.B, p pods, mtu int) {
	b.Helper()
	for i, pod := range p {
		run(b, c[i], "ip link set %s mtu %d", pod.Interface(), mtu)
		run(b, pod, "ip link set eth0 mtu %d", mtu)
	}
}

// underlay is the way without any pod network.
func underlay(b *testing.B, name string) way {
	b.Helper()
	return newCable(b).nodes(name)
}

// vxlanByHand is the way through a minimal VXLAN, made by hand.
func vxlanByHand(b *testing.B, name string) way {
	b.Helper()
	return newVXLAN(b).finish(b, name)
}

// vxlanTracked is the same on nodes that track connections, as all do that have Services: by a
// single rule, which accepts.
func vxlanTracked(b *testing.B, name string) way {
	b.Helper()
	w, _ := vxlanTrackedOn(b, name)
	return w
}

func vxlanTrackedOn(b *testing.B, name string) (way, cable) {
	b.Helper()
	c := newVXLAN(b)
	for _, node := range c {
		node.NftInput("table inet by-hand { chain forward { type filter hook forward priority " +
			"filter; ct state established,related accept; }; }")
	}
	return c.finish(b, name), c
}

// vxlanTranslated has, besides, what nodes with Services have: a chain for address translation,
// without a rule.
func vxlanTranslated(b *testing.B, name string) way {
	b.Helper()
	w, nodes := vxlanTrackedOn(b, name)
	for _, node := range nodes {
		node.NftInput("table inet by-hand { chain source { type nat hook postrouting priority " +
			"srcnat; }; }")
	}
	return w
}

func newVXLAN(b *testing.B) cable {
	b.Helper()
	c := newCable(b)
	for i, node := range c {
		peer := 1 - i
		run(b, node,
			`ip link add vxlan1 mtu %d type vxlan id 1 dev eth0 local %s remote %s `+
				`dstport 8472 noudpcsum
			ip addr add %s/32 dev vxlan1
			ip link set vxlan1 up
			ip route add %s via %s dev vxlan1 onlink`, tunnelMTU, underlay4(i), underlay4(peer),
			podCIDR4(i).Addr(), podCIDR4(peer), podCIDR4(peer).Addr())
	}
	return c
}

func (c cable) finish(b *testing.B, name string) way {
	b.Helper()
	w, p := c.pods(name)
	c.setMTU(b, p, tunnelMTU)
	return w
}
