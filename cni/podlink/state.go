package podlink

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// hostState is what the node has in its kernel for its pods' links, or should have.
type hostState struct {
	links      []hostLink
	sysctls    []linkSysctl
	shapers    []shaper
	redirects  []redirect
	addresses  []hostAddress
	neighbours []hostNeighbour
	routes     []hostRoute
}

// hostItem is one thing of a hostState.
//
// What implements it can be compared with ==.
type hostItem interface {
	key() string    // tells things of a kind apart: of one key there is one thing
	device() string // the pod's link or its shaping device; empty: of no pod
	add() string    // the command that adds it, or changes it to what it should be
	remove() string // the command that removes it
}

// macAddr is a hardware address that can be compared.
type macAddr [6]byte

func (m macAddr) String() string { return net.HardwareAddr(m[:]).String() }

// hostLink is the host end of a pod's link, or the device that shapes what the pod sends. The
// former is never made here: without the pod's end it would be of no use.
type hostLink struct {
	name  string
	isIFB bool
	mac   macAddr // zero: any
	mtu   int     // bytes; 0: any
	up    bool
	noARP bool
	alias string
}

func (l hostLink) key() string    { return l.name }
func (l hostLink) device() string { return l.name }
func (l hostLink) remove() string { return "ip link del " + l.name }
func (l hostLink) add() string {
	if l.isIFB {
		return fmt.Sprintf("ip link add %s%s type ifb", l.name, when(l.up, " up"))
	}
	state := " down"
	if l.up {
		state = " up"
	}
	return fmt.Sprintf("ip link set %s%s address %s mtu %d%s alias %q", l.name, state, l.mac, l.mtu,
		when(l.noARP, " arp off"), l.alias)
}

func when(yes bool, text string) string {
	if yes {
		return text
	}
	return ""
}

// hostAddress is an address of the host end.
type hostAddress struct {
	link      string
	prefix    netip.Prefix
	different string // what else about it isn't as it should be; empty if desired
}

func (a hostAddress) key() string    { return fmt.Sprintf("%s dev %s", a.prefix, a.link) }
func (a hostAddress) device() string { return a.link }
func (a hostAddress) remove() string { return "ip addr del " + a.key() }
func (a hostAddress) add() string {
	return "ip addr add " + a.key() + when(a.prefix.Addr().Is6(), " nodad") + different(a.different)
}

func different(d string) string { return when(d != "", " # "+d) }

// hostNeighbour says which MAC the pod's end has. It is permanent.
type hostNeighbour struct {
	link string
	addr netip.Addr
	mac  macAddr
}

func (n hostNeighbour) key() string    { return fmt.Sprintf("%s dev %s", n.addr, n.link) }
func (n hostNeighbour) device() string { return n.link }
func (n hostNeighbour) remove() string { return "ip neigh del " + n.key() }
func (n hostNeighbour) add() string {
	return fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent", n.addr, n.mac, n.link)
}

// hostRoute leads to a pod. One without a link makes unreachable the addresses of the node's
// podCIDR that no pod has: packets to them would go round in circles by way of the default route,
// and their senders would wait.
type hostRoute struct {
	to        netip.Prefix
	link      string
	src       netip.Addr // what the node uses towards the pod; the zero Addr: the kernel chooses
	metric    int
	tos       int
	different string // as in hostAddress
}

func (r hostRoute) key() string {
	return r.to.String() + when(r.tos != 0, fmt.Sprintf(" tos %d", r.tos)) +
		fmt.Sprintf(" metric %d", r.metric)
}
func (r hostRoute) device() string { return r.link }
func (r hostRoute) remove() string {
	return fmt.Sprintf("ip route del %s proto %d", r.key(), RouteProtocol)
}
func (r hostRoute) add() string {
	if r.link == "" {
		return fmt.Sprintf("ip route replace unreachable %s proto %d%s", r.key(), RouteProtocol,
			different(r.different))
	}
	return fmt.Sprintf("ip route replace %s dev %s proto %d%s%s%s", r.key(), r.link, RouteProtocol,
		when(r.to.Addr().Is4(), " scope link"),
		when(r.src.IsValid(), " src "+r.src.String()), different(r.different))
}

// String is the commands that make the state, in order.
func (s hostState) String() string {
	var lines strings.Builder
	for _, op := range diffHost(s, hostState{}) {
		lines.WriteString(op.String() + "\n")
	}
	return lines.String()
}

// hostOp is one change to the kernel's state: removal of the old things of a key, or else the new
// one in their place.
type hostOp struct {
	old  []hostItem
	next hostItem // nil: only remove
	link string
	text string
}

// String is the commands a person would type.
func (o hostOp) String() string { return o.text }

func (o hostOp) removesLink() bool {
	if o.next != nil {
		return false
	}
	_, isLink := o.old[0].(hostLink)
	return isLink
}

// diffHost is what to do to get from the actual to the desired state, in order: what others build
// on comes first, and goes last.
func diffHost(desired, actual hostState) []hostOp {
	links, noLinks := diffItems(items(desired.links), items(actual.links))
	sysctls, _ := diffItems(items(desired.sysctls), items(actual.sysctls))
	shapers, noShapers := diffItems(items(desired.shapers), items(actual.shapers))
	redirects, noRedirects := diffItems(items(desired.redirects), items(actual.redirects))
	addresses, noAddresses := diffItems(items(desired.addresses), items(actual.addresses))
	neighbours, noNeighbours := diffItems(items(desired.neighbours), items(actual.neighbours))
	routes, noRoutes := diffItems(items(desired.routes), items(actual.routes))
	return slices.Concat(sysctls, links, shapers, redirects, addresses, neighbours, routes,
		noRoutes, noNeighbours, noAddresses, noRedirects, noShapers, noLinks)
}

func items[T hostItem](of []T) []hostItem {
	all := make([]hostItem, len(of))
	for i, item := range of {
		all[i] = item
	}
	return all
}

// diffItems is the changes of one kind of thing, and the removals, each in the order of keys.
func diffItems(desired, actual []hostItem) (changes, removals []hostOp) {
	there, wanted := map[string][]hostItem{}, map[string]hostItem{}
	for _, item := range actual {
		there[item.key()] = append(there[item.key()], item)
	}
	for _, item := range desired {
		wanted[item.key()] = item
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		now, want := there[key], wanted[key]
		if len(now) != 1 || now[0] != want {
			changes = append(changes, newHostOp(now, want))
		}
		delete(there, key)
	}
	for _, key := range slices.Sorted(maps.Keys(there)) {
		removals = append(removals, newHostOp(there[key], nil))
	}
	return changes, removals
}

func newHostOp(old []hostItem, next hostItem) hostOp {
	op := hostOp{old: old, next: next}
	var lines []string
	for _, item := range old {
		op.link = item.device()
		if next == nil || len(old) > 1 {
			lines = append(lines, item.remove())
		}
	}
	if next != nil {
		op.link = next.device()
		lines = append(lines, next.add())
	}
	op.text = strings.Join(lines, "\n")
	return op
}
