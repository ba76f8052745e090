package overlay

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/link"
)

// RouteProtocol marks the routes between nodes: who put them there. Routes to a node's own pods
// have another one.
const RouteProtocol netlink.RouteProtocol = names.NodeRoutes

// Tunnel is a VXLAN device.
type Tunnel struct {
	Name      string
	MAC       link.MAC
	MTU       int // bytes
	Up        bool
	VNI       uint32
	Port      uint16     // UDP, of all nodes
	Local     netip.Addr // the node's address on the underlay
	Below     string     // the underlay's link; empty: whichever the routes say
	Learning  bool       // whether anybody's packets change where the next ones go
	Checksum  bool       // over IPv4, whether packets are sent with a UDP checksum
	ZeroTx6   bool       // over IPv6, whether packets are sent without one
	ZeroRx6   bool       // over IPv6, whether packets without one are taken
	Different string     // what else about it isn't as it should be; empty if desired
}

// Kind and the following methods are those of a link.Item.
func (t Tunnel) Kind() link.Kind { return link.KindLink }
func (t Tunnel) Key() string     { return t.Name }
func (t Tunnel) Device() string  { return t.Name }
func (t Tunnel) Remove() string  { return "ip link del " + t.Name }
func (t Tunnel) Add() string {
	words := []string{
		"ip link add", t.Name, "address", t.MAC.String(),
		fmt.Sprintf("mtu %d%s type vxlan id %d", t.MTU, link.When(t.Up, " up"), t.VNI),
		fmt.Sprintf("local %s%s dstport %d", t.Local, link.When(t.Below != "", " dev "+t.Below),
			t.Port),
		no(t.Learning) + "learning", no(t.Checksum) + "udpcsum",
		no(t.ZeroTx6) + "udp6zerocsumtx", no(t.ZeroRx6) + "udp6zerocsumrx",
	}
	return strings.Join(words, " ") + link.When(t.Different != "", " # "+t.Different)
}

func no(yes bool) string { return link.When(!yes, "no") }

// String is the commands that make the plan's state, in order.
func (p Plan) String() string { return link.Commands(Diff(p.State, nil)) }

// Diff is what to do to get from the actual to the desired state, in order: per peer the neighbour,
// the forward, then the route; and after all that removals, in the reverse order, so that there is
// no moment without a way to a peer that only changes.
func Diff(desired, actual link.State) []link.Op {
	return link.Diff(desired, actual, peersOf(desired).of)
}

// peers says what belongs together: a peer is named by its MAC, or by its underlay address where no
// tunnel leads to it.
type peers struct{ tunnelled map[netip.Addr]string }

func peersOf(s link.State) peers {
	p := peers{map[netip.Addr]string{}}
	for _, n := range link.Of[link.Neighbour](s) {
		p.tunnelled[n.Addr] = n.MAC.String()
	}
	return p
}

// of is the peer that an item is about, or empty.
func (p peers) of(item link.Item) string {
	switch item := item.(type) {
	case link.Neighbour:
		return item.MAC.String()
	case link.Forward:
		return item.MAC.String()
	case link.Route:
		if mac, found := p.tunnelled[item.Via]; found {
			return mac
		}
		return item.Via.String()
	default:
		return ""
	}
}
