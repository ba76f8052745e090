package overlay

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/link"
)

// Foresight is what a Reconciler would come to, and what it would meet.
type Foresight struct {
	Plan

	HasTunnel bool   // the tunnel device is there: an agent has been
	InTheWay  string // a link beside which the kernel doesn't take the tunnel; empty if none
	Sharer    string // a link that has the tunnel's port, and shares it; empty if none
	LinkMTU   int    // of the uplinks, the lowest, bytes
	// addresses of links, but the tunnel's and pods', that are in the pods' networks: such as
	// "10.244.0.1/24 on cni0"
	Overlapping []string
}

// Foresee says what a Reconciler would come to in the network namespace of the options, among these
// nodes, and changes nothing. Without nodes, this one is guessed: it has the addresses of the links
// of the default routes, and the first of the pods' addresses. The error is about the kernel, or
// why the node can't take part; in the latter case the Foresight has all but the Plan.
func Foresee(o Options, own string, nodes []Node, c Config) (f Foresight, err error) {
	r := New(o)
	k, err := r.loop.Open()
	if err != nil {
		return Foresight{}, err
	}
	defer k.Close()
	err = link.In(o.NetNS, func() error {
		seen, err := r.look(k, c.Device())
		if err != nil {
			return err
		}
		if err := seen.readRoutes(); err != nil {
			return err
		}
		if len(nodes) == 0 {
			nodes = []Node{seen.guess(own, c)}
		}
		links := seen.links()
		f.Overlapping = overlapping(links, c)
		_, f.HasTunnel = k.Links()[c.Device()]
		f.Plan, err = r.plan(&seen, inputs{own, nodes, c}, links)
		if c.Backend == VXLAN {
			f.meet(k, Tunnel{
				Name: c.Device(), VNI: c.VNI, Port: c.Port, Local: f.Local, ZeroRx6: true,
			})
		}
		for _, name := range f.Uplinks {
			if mtu := k.Links()[name].MTU; f.LinkMTU == 0 || mtu < f.LinkMTU {
				f.LinkMTU = mtu
			}
		}
		return err
	})
	return f, err
}

// meet says which others' devices the tunnel would meet.
func (f *Foresight) meet(k *link.Kernel, t Tunnel) {
	if other := t.beside(k, t.collides); other != nil {
		f.InTheWay = fmt.Sprintf("link %s has VNI %d and UDP port %d", other.Name,
			other.VxlanId, other.Port)
	}
	shares := func(other *netlink.Vxlan) bool { // a device has its port while it is up
		return !t.collides(other) && other.Flags&net.FlagUp != 0
	}
	if other := t.beside(k, shares); other != nil {
		f.Sharer = other.Name
	}
}

// guess is a node by what its kernel says of it.
func (s sight) guess(own string, c Config) Node {
	n := Node{Name: own}
	for _, everybody := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		family := familyOf(everybody)
		if network := c.network(family); network.IsValid() {
			n.PodCIDRs = append(n.PodCIDRs, firstPart(network))
		}
		defaults := s.defaultLinks(link.Family(everybody))
		for _, l := range s.links() {
			for _, p := range l.Prefixes {
				if slices.Contains(defaults, l.Name) && family.of(p.Addr()) {
					n.Addresses = append(n.Addresses, p.Addr())
				}
			}
		}
	}
	return n
}

// firstPart is the first podCIDR of a network, of the size that clusters give nodes.
func firstPart(network netip.Prefix) netip.Prefix {
	const usual4, usual6 = 24, 64
	bits := usual4
	if network.Addr().Is6() {
		bits = usual6
	}
	return netip.PrefixFrom(network.Addr(), max(bits, network.Bits()))
}

// overlapping is the addresses of links that are in the pods' networks, or have these on-link.
func overlapping(links []Link, c Config) (found []string) {
	for _, l := range links {
		for _, p := range l.Prefixes {
			network := c.network(familyOf(p.Addr()))
			if network.IsValid() && network.Overlaps(p) {
				found = append(found, fmt.Sprintf("%s on %s", p, l.Name))
			}
		}
	}
	return found
}
