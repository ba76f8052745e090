// Package verify compares what the kernel's table does with what the policies mean.
//
// On one side is a [kernel.Program], which was read from the kernel. On the other are a
// [cluster.Meaning], which reads the policies themselves, and a [Node], which says what has to hold
// besides: no one poses as a pod, pods that aren't programmed carry nothing, and packets of no pod
// aren't touched. A [Pass] goes through all classes of packets that one of the sides could
// distinguish and compares, for each, the protocols and ports that pass: see expect.go for what has
// to pass, and work.go for the classes. What IPVS sends on is in senton.go.
//
// Addresses are cut at every boundary that the policies, the node or the table name. Of those that
// neither side can distinguish, one is judged for all.
//
// Not covered are translations: only table.Table.Check compares where a masqueraded or redirected
// packet goes. Nor are other tables.
package verify

import (
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"github.com/sluice-net/sluice/internal/names"
)

// Node is what the node has to do besides its policies. Compare ruleset.Config.
type Node struct {
	// AllowPodToNode exempts traffic from a pod to its own node from egress.
	AllowPodToNode bool
	// PodRanges are addresses of pods that other plugins wire: they carry nothing unless they are
	// programmed.
	PodRanges []netip.Prefix
	// CutLabel is the bit in the label of a cut connection.
	CutLabel uint8
	// IPVS says that what goes out, and isn't the node's own, is judged by its addresses.
	IPVS bool

	// The pod network, where it is ours; without it there are no Pods.
	Pods      []netip.Prefix
	Tunnel    string // its device; empty without one
	Port      uint16
	Local     netip.Addr
	Endpoints []netip.Addr
}

// vethPrefix begins the names of the host ends of our pods, and of nothing else.
const vethPrefix = names.PodLink

// addresses lists the addresses at which something changes for the node.
func (n *Node) addresses() []netip.Addr {
	out := append([]netip.Addr{}, n.Endpoints...)
	if n.Local.IsValid() {
		out = append(out, n.Local)
	}
	for _, list := range [][]netip.Prefix{n.Pods, n.PodRanges, special} {
		for _, p := range list {
			out = append(out, p.Masked().Addr(), netipx.PrefixLastIP(p))
		}
	}
	return append(out, strangers[:]...)
}

// special are the prefixes that rules treat separately, under any policies.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"),
	loopback4, linkLocal6, multicast4, multicast6,
}

var (
	loopback4  = netip.MustParsePrefix("127.0.0.0/8")
	linkLocal6 = netip.MustParsePrefix("fe80::/10")
	multicast4 = netip.MustParsePrefix("224.0.0.0/4")
	multicast6 = netip.MustParsePrefix("ff00::/8")
	broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// strangers are addresses of documentation (RFC 5737, RFC 3849), without an owner unless a policy
// or a rule names them.
var strangers = [2]netip.Addr{netip.MustParseAddr("198.51.100.77"),
	netip.MustParseAddr("2001:db8:7777::7")}

func stranger(is4 bool) netip.Addr {
	if is4 {
		return strangers[0]
	}
	return strangers[1]
}

// signature distinguishes addresses that the node treats differently; kind does so where no policy
// counts.
func (n *Node) signature(a netip.Addr) string {
	if a == n.Local || a == broadcast4 || slices.Contains(strangers[:], a) ||
		slices.Contains(n.Endpoints, a) {
		return n.kind(a) + a.String()
	}
	return n.kind(a)
}

func (n *Node) kind(a netip.Addr) string {
	var out []byte
	for _, list := range [][]netip.Prefix{n.Pods, n.PodRanges, special} {
		in := byte('0')
		for i, p := range list {
			if p.Contains(a) {
				in = byte('1' + i%8)
			}
		}
		out = append(out, in)
	}
	return fmt.Sprint(string(out), a == n.Local, slices.Contains(n.Endpoints, a))
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
