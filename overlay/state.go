package overlay

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/internal/names"
)

// RouteProtocol marks the routes between nodes: who put them there. Routes to a node's own pods have another one.
const RouteProtocol netlink.RouteProtocol = names.NodeRoutes

// State is what a node has in its kernel for the pod network between nodes, or should have.
type State struct {
	Tunnels    []Tunnel
	Addresses  []Address
	Neighbours []Neighbour
	Forwards   []Forward
	Routes     []Route
}

// An item is one thing of a State that is added, changed and removed as a whole.
type item interface {
	comparable
	key() string    // tells things of a kind apart: of one key there is one thing
	add() string    // the command that adds it
	remove() string // the command that removes it
}

// Tunnel is a VXLAN device.
type Tunnel struct {
	Name      string
	MAC       MAC
	MTU       int // bytes
	Up        bool
	VNI       uint32
	Port      uint16     // UDP, of all nodes
	Local     netip.Addr // the node's address on the underlay
	Device    string     // the underlay's link; empty: whichever the routes say
	Learning  bool       // whether anybody's packets change where the next ones go
	Checksum  bool       // over IPv4, whether packets are sent with a UDP checksum
	ZeroTx6   bool       // over IPv6, whether packets are sent without one
	ZeroRx6   bool       // over IPv6, whether packets without one are taken
	Different string     // what else about it isn't as it should be; empty if desired
}

func (t Tunnel) key() string { return t.Name }
func (t Tunnel) add() string {
	words := []string{
		"ip link add", t.Name, "address", t.MAC.String(), fmt.Sprintf("mtu %d up type vxlan id %d", t.MTU, t.VNI),
		fmt.Sprintf("local %s%s dstport %d", t.Local, on(t.Device), t.Port),
		no(t.Learning) + "learning", no(t.Checksum) + "udpcsum", no(t.ZeroTx6) + "udp6zerocsumtx", no(t.ZeroRx6) + "udp6zerocsumrx",
	}
	line := strings.Join(words, " ") + different(t.Different)
	if !t.Up {
		line = strings.Replace(line, " up type ", " type ", 1)
	}
	return line
}
func (t Tunnel) remove() string { return "ip link del " + t.Name }

func on(device string) string {
	if device == "" {
		return ""
	}
	return " dev " + device
}

func no(yes bool) string {
	if yes {
		return ""
	}
	return "no"
}

func different(d string) string {
	if d == "" {
		return ""
	}
	return " # " + d
}

// Address is one of the node's own on its tunnel device.
type Address struct {
	Device string
	Prefix netip.Prefix
}

func (a Address) key() string    { return a.words() }
func (a Address) words() string  { return fmt.Sprintf("%s dev %s", a.Prefix, a.Device) }
func (a Address) add() string    { return "ip addr add " + a.words() }
func (a Address) remove() string { return "ip addr del " + a.words() }

// Neighbour says which MAC a peer's tunnel address has. It is permanent.
type Neighbour struct {
	Device    string
	Addr      netip.Addr
	MAC       MAC
	Different string // as in Tunnel
}

func (n Neighbour) key() string    { return fmt.Sprintf("%s dev %s", n.Addr, n.Device) }
func (n Neighbour) remove() string { return "ip neigh del " + n.key() }
func (n Neighbour) add() string {
	return fmt.Sprintf("ip neigh add %s lladdr %s dev %s nud permanent%s", n.Addr, n.MAC, n.Device, different(n.Different))
}

// Forward says to which underlay address frames for a MAC go: an entry of the device's forwarding database (FDB).
type Forward struct {
	Device    string
	MAC       MAC
	To        netip.Addr
	Different string // as in Tunnel
}

func (f Forward) key() string    { return fmt.Sprintf("%s dev %s", f.MAC, f.Device) }
func (f Forward) remove() string { return "bridge fdb del " + f.key() }
func (f Forward) add() string {
	return fmt.Sprintf("bridge fdb add %s dst %s self permanent%s", f.key(), f.To, different(f.Different))
}

// Route leads to a node's pods. One without Via makes addresses of the node's own pods unreachable that no pod has.
type Route struct {
	To        netip.Prefix
	Via       netip.Addr
	Device    string
	Onlink    bool // Via is on the device although no prefix of it says so
	Metric    int
	TOS       int    // that packets must have; 0: any
	Different string // as in Tunnel
}

func (r Route) key() string {
	key := r.To.String()
	if r.TOS != 0 {
		key += fmt.Sprintf(" tos %d", r.TOS)
	}
	if r.Metric != defaultMetric(r.To) {
		key += fmt.Sprintf(" metric %d", r.Metric)
	}
	return key
}

func (r Route) remove() string {
	return fmt.Sprintf("ip route del %s proto %d", r.key(), RouteProtocol)
}
func (r Route) add() string {
	line := "ip route add "
	if r.Via.IsValid() {
		line += fmt.Sprintf("%s via %s dev %s", r.key(), r.Via, r.Device)
	} else {
		line += "unreachable " + r.key()
	}
	if r.Onlink {
		line += " onlink"
	}
	return fmt.Sprintf("%s proto %d%s", line, RouteProtocol, different(r.Different))
}

// defaultMetric is what the kernel takes for a route without one.
func defaultMetric(to netip.Prefix) int {
	if to.Addr().Is4() {
		return 0
	}
	const ipv6Default = 1024
	return ipv6Default
}

// String is the commands that make the state, in order.
func (s State) String() string {
	var lines []string
	for _, op := range Diff(s, State{}) {
		lines = append(lines, op.String()+"\n")
	}
	return strings.Join(lines, "")
}

// Op is one change to the kernel's state.
type Op struct {
	what fmt.Stringer // a change[T]
	peer string       // the node that the change is about; empty: the own one or a removal
}

// String is the commands a person would type.
func (o Op) String() string { return o.what.String() }

// change is from the things that are there (of the same key, more than one if somebody meddled) to the one that should be, if any.
type change[T item] struct {
	from []T
	to   *T
}

func (c change[T]) String() string {
	var lines []string
	for _, old := range c.from {
		lines = append(lines, old.remove())
	}
	if c.to != nil {
		lines = append(lines, (*c.to).add())
	}
	return strings.Join(lines, "\n")
}

// Diff is what to do to get from the actual to the desired state, in order: per peer the neighbour, the forward, then the route; and
// after all that removals, in the reverse order, so that there is no moment without a way to a peer that only changes.
func Diff(desired, actual State) []Op {
	tunnels, noTunnels := diff(desired.Tunnels, actual.Tunnels)
	addresses, noAddresses := diff(desired.Addresses, actual.Addresses)
	neighbours, noNeighbours := diff(desired.Neighbours, actual.Neighbours)
	forwards, noForwards := diff(desired.Forwards, actual.Forwards)
	routes, noRoutes := diff(desired.Routes, actual.Routes)

	peers := peersOf(desired)
	var ops, perPeer []Op
	ops = append(ops, asOps(tunnels, nil)...)
	ops = append(ops, asOps(addresses, nil)...)
	perPeer = append(perPeer, asOps(neighbours, func(n Neighbour) string { return peers.macs[n.MAC] })...)
	perPeer = append(perPeer, asOps(forwards, func(f Forward) string { return peers.macs[f.MAC] })...)
	perPeer = append(perPeer, asOps(routes, func(r Route) string { return peers.routes[r.To] })...)
	slices.SortStableFunc(perPeer, func(a, b Op) int { return cmp.Compare(a.peer, b.peer) })
	ops = append(ops, perPeer...)
	ops = append(ops, asOps(noRoutes, nil)...)
	ops = append(ops, asOps(noForwards, nil)...)
	ops = append(ops, asOps(noNeighbours, nil)...)
	ops = append(ops, asOps(noAddresses, nil)...)
	return append(ops, asOps(noTunnels, nil)...)
}

func asOps[T item](changes []change[T], peer func(T) string) []Op {
	ops := make([]Op, 0, len(changes))
	for _, c := range changes {
		op := Op{what: c}
		if peer != nil {
			op.peer = peer(*c.to)
		}
		ops = append(ops, op)
	}
	return ops
}

// diff is the changes of one kind of thing, and the removals, each in the order of keys.
func diff[T item](desired, actual []T) (changes, removals []change[T]) {
	there, wanted := map[string][]T{}, map[string]T{}
	for _, t := range actual {
		key := t.key()
		there[key] = append(there[key], t)
	}
	for _, t := range desired {
		wanted[t.key()] = t
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		now, want := there[key], wanted[key]
		delete(there, key)
		if len(now) != 1 || now[0] != want {
			changes = append(changes, change[T]{from: now, to: &want})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(there)) {
		removals = append(removals, change[T]{from: there[key]})
	}
	return changes, removals
}

// peerOf tells what belongs together: a peer is named by its MAC, or by its underlay address where no tunnel leads to it.
type peerOf struct {
	macs   map[MAC]string
	routes map[netip.Prefix]string
}

func peersOf(s State) peerOf {
	p := peerOf{macs: map[MAC]string{}, routes: map[netip.Prefix]string{}}
	gateways := map[netip.Addr]string{}
	for _, n := range s.Neighbours {
		p.macs[n.MAC] = n.MAC.String()
		gateways[n.Addr] = n.MAC.String()
	}
	for _, r := range s.Routes {
		if peer, tunnelled := gateways[r.Via]; tunnelled {
			p.routes[r.To] = peer
		} else if r.Via.IsValid() {
			p.routes[r.To] = r.Via.String()
		}
	}
	return p
}
