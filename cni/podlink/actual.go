package podlink

import (
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/link"
)

// sight is what one look at the node has shown.
type sight struct {
	kernel    *link.Kernel
	routes    []netlink.Route // of our protocol
	addresses []netlink.Addr  // of all links
	local     map[netip.Addr]bool
}

// look reads the network namespace of the calling thread. Links are listed after routes: a route
// whose link isn't there then is of no pod. The other way round it could be that of a pod that has
// come meanwhile.
func look(k *link.Kernel, links func() error) (s sight, err error) {
	s.kernel = k
	s.routes, err = k.Routes(func(r netlink.Route) bool { return r.Protocol == RouteProtocol })
	if err != nil {
		return sight{}, err
	}
	if err := links(); err != nil {
		return sight{}, err
	}
	s.addresses, err = k.Addresses()
	s.local = make(map[netip.Addr]bool, len(s.addresses))
	for _, a := range s.addresses {
		s.local[link.Addr(a.IP)] = true
	}
	return s, err
}

// isLocal says whether the node has an address.
func (s sight) isLocal(addr netip.Addr) bool { return s.local[addr] }

// isOurs says whether a link's name is that of a pod's link or of a shaping device.
func isOurs(name string) bool { return cni.IsInterfaceName(name) || isShapeName(name) }

// hostEnds is what is there and ours to compare with the desired state, but for shaping: everything
// on links that are settled, and routes of our protocol. What is on links that are fresh or foreign
// isn't in it.
func (s sight) hostEnds(desired link.State, phases map[string]phase) (link.State, error) {
	isSettled := func(name string) bool { return phases[name] == settled }
	var all link.State
	for name, found := range s.kernel.Links() {
		if isSettled(name) || isShapeName(name) && found.Type == ifb {
			all = append(all, hostLinkOf(found))
		}
	}
	for _, want := range link.Of[link.Sysctl](desired) {
		all = append(all, s.kernel.Links()[want.Link].Settings([]link.Sysctl{want})...)
	}
	for _, a := range s.addresses {
		if address := s.kernel.AddressOf(a); isSettled(address.Link) {
			all = append(all, address)
		}
	}
	for _, r := range s.routes {
		route := s.kernel.RouteOf(r)
		if p, known := phases[route.Link]; !known || p == settled {
			all = append(all, route)
		}
	}
	neighbours, err := s.kernel.Neighbours(isSettled)
	return append(all, neighbours...), err
}
