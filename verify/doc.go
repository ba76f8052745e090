// Package verify holds what the kernel's table does against what the policies mean.
//
// On one side is a [kernel.Program], which was read from the kernel, on the other a
// [cluster.Meaning], which reads the policies themselves, and a [Node], which says what has to hold
// besides them: that nobody poses as a pod, that pods which aren't programmed carry nothing, that
// what is no pod's isn't touched. A [Pass] goes through all classes of packets that either side
// could tell apart and compares, for each, the protocols and ports that pass: see expect.go for
// what has to be and work.go for the classes.
//
// Addresses are cut at every boundary that the policies, the node or the table name, and those that
// neither side can tell apart are judged by one of them.
//
// It isn't for translations: where a masqueraded or redirected packet goes is compared by
// table.Table.Check alone. Nor is it for other tables.
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
	// CutLabel is the bit of a connection's label that says that it is cut.
	CutLabel uint8

	// The pod network, where it is ours: no Pods without.
	Pods      []netip.Prefix
	Tunnel    bool
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

// special are the prefixes that rules treat apart, whatever the policies.
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

// strangers are addresses of documentation (RFC 5737, RFC 3849): nobody's, if no policy and no rule
// says otherwise.
var strangers = [2]netip.Addr{netip.MustParseAddr("198.51.100.77"),
	netip.MustParseAddr("2001:db8:7777::7")}

func stranger(is4 bool) netip.Addr {
	if is4 {
		return strangers[0]
	}
	return strangers[1]
}

// signature tells addresses apart that the node treats differently, kind those where no policy is
// asked.
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
