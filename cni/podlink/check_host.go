package podlink

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// hostDifferences says what the host end lacks of its description, a line each, in the order in
// which a Keeper restores it. It may have more. An empty Alias stands for any. The calling thread
// is in the node's namespace.
func hostDifferences(w Wiring) ([]string, error) {
	s, err := openSpace()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	link, err := linkHere(w.HostName)
	if errors.Is(err, errNoLink) {
		return []string{fmt.Sprintf("host: %s is missing", w.HostName)}, nil
	}
	if err != nil {
		return nil, err
	}
	if w.Alias == "" {
		w.Alias = link.alias
	}
	ops, err := s.hostOps(w, link)
	if err != nil {
		return nil, fmt.Errorf("reading what %s has: %w", w.HostName, err)
	}
	var lines []string
	for _, text := range lacksOfLink(link, ops) {
		lines = append(lines, fmt.Sprintf("host: %s %s", w.HostName, text))
	}
	return lines, nil
}

// hostOps is what a Keeper would do to a link that it looks after.
func (s space) hostOps(w Wiring, link podLink) ([]hostOp, error) {
	routes, err := s.ourRoutes()
	if err != nil {
		return nil, err
	}
	addresses, err := s.allAddresses()
	if err != nil {
		return nil, err
	}
	local := localOf(addresses)
	desired := w.hostEnd(link, func(addr netip.Addr) bool { return local[addr] })
	phases, links := map[string]phase{link.name: settled}, map[string]podLink{link.name: link}
	actual, err := s.actualHostEnds(desired, phases, links, addresses, routes)
	if err != nil {
		return nil, err
	}
	hostInputs{nodeAddrs: w.NodeAddrs}.keepUnknown(&desired, actual)
	return diffHost(desired, actual), nil
}

// lacksOfLink says in words what changes would bring; removals bring nothing.
func lacksOfLink(link podLink, ops []hostOp) (lines []string) {
	if link.up && !link.hasCarrier {
		lines = append(lines, "is not up")
	}
	for _, op := range ops {
		switch want := op.next.(type) {
		case hostLink:
			lines = append(lines, lacksOfHostLink(link.hostLink, want)...)
		case linkSysctl:
			now := op.old[0].(linkSysctl).value
			lines = append(lines, fmt.Sprintf("has %s of %s at %d, want %d", want.name, want.family,
				now, want.value))
		case hostAddress:
			lines = append(lines, fmt.Sprintf("lacks the address %s", want.prefix))
		case hostNeighbour:
			lines = append(lines, fmt.Sprintf("lacks the permanent neighbour %s with %s", want.addr,
				want.mac))
		case hostRoute:
			lines = append(lines, lacksOfRoute(want, op.old))
		}
	}
	return lines
}

func lacksOfHostLink(now, want hostLink) (lines []string) {
	if now.mac != want.mac {
		lines = append(lines, fmt.Sprintf("has the MAC %s, want %s", now.mac, want.mac))
	}
	if now.mtu != want.mtu {
		lines = append(lines, fmt.Sprintf("has the MTU %d, want %d", now.mtu, want.mtu))
	}
	if !now.up {
		lines = append(lines, "is not up")
	}
	if !now.noARP {
		lines = append(lines, "has ARP on, want it off")
	}
	if now.alias != want.alias {
		lines = append(lines, fmt.Sprintf("has the alias %q, want %q", now.alias, want.alias))
	}
	return lines
}

// lacksOfRoute tells a route that isn't there from one that isn't as it should be.
func lacksOfRoute(want hostRoute, old []hostItem) string {
	for _, now := range old {
		if now, isRoute := now.(hostRoute); isRoute && now.link == want.link {
			return fmt.Sprintf("has another route to %s, want that of: %s", want.to, want.add())
		}
	}
	return fmt.Sprintf("lacks the route to %s", want.to)
}

func (s space) allAddresses() ([]netlink.Addr, error) {
	return wholeDump("addresses", func() ([]netlink.Addr, error) {
		return s.AddrList(nil, netlink.FAMILY_ALL)
	})
}

// localOf is the set of addresses that a node has.
func localOf(addresses []netlink.Addr) map[netip.Addr]bool {
	local := map[netip.Addr]bool{}
	for _, a := range addresses {
		local[addrOf(a.IP)] = true
	}
	return local
}
