package overlay

import (
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// read is what is there and ours: all tunnel devices with everything on them, and routes of our protocol. It counts on readLinks
// having been called just before.
func (k *kernel) read() (State, error) {
	var s State
	for name, link := range k.links {
		if isDevice(name) {
			s.Tunnels = append(s.Tunnels, k.tunnel(link))
		}
	}
	if len(s.Tunnels) > 0 {
		if err := k.readTunnels(&s); err != nil {
			return State{}, err
		}
	}
	routes, err := dumped("routes", func() ([]netlink.Route, error) {
		ours := &netlink.Route{Protocol: RouteProtocol}
		return k.Handle.Handle.RouteListFiltered(netlink.FAMILY_ALL, ours, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return State{}, err
	}
	for _, r := range routes {
		s.Routes = append(s.Routes, k.route(r))
	}
	return s, nil
}

func (k *kernel) tunnel(link netlink.Link) Tunnel {
	attrs := link.Attrs()
	t := Tunnel{Name: attrs.Name, MTU: attrs.MTU, Up: attrs.Flags&net.FlagUp != 0}
	copy(t.MAC[:], attrs.HardwareAddr)
	var odd []string
	if attrs.MasterIndex != 0 {
		odd = append(odd, enslaved)
	}
	vxlan, isVXLAN := link.(*netlink.Vxlan)
	if !isVXLAN {
		t.Different = "type " + link.Type()
		return t
	}
	t.VNI = uint32(vxlan.VxlanId) //nolint:gosec // it has 24 bits
	t.Port = uint16(vxlan.Port)   //nolint:gosec // it has 16 bits
	t.Local = addrOf(vxlan.SrcAddr)
	if vxlan.VtepDevIndex != 0 {
		t.Device = k.name(vxlan.VtepDevIndex)
	}
	t.Learning, t.Checksum, t.ZeroTx6, t.ZeroRx6 = vxlan.Learning, vxlan.UDPCSum, vxlan.UDP6ZeroCSumTx, vxlan.UDP6ZeroCSumRx
	for _, option := range []struct {
		on   bool
		name string
	}{
		{vxlan.Group != nil, "remote"},
		{vxlan.Proxy, "proxy"},
		{vxlan.RSC, "rsc"},
		{vxlan.L2miss, "l2miss"},
		{vxlan.L3miss, "l3miss"},
		{vxlan.GBP, "gbp"},
		{vxlan.FlowBased, "external"},
		{vxlan.TOS != 0, "tos"},
		{vxlan.TTL != 0, "ttl"},
		{vxlan.Limit != 0, "maxaddress"},
	} {
		if option.on {
			odd = append(odd, option.name)
		}
	}
	t.Different = strings.Join(odd, " ")
	return t
}

// enslaved is what is different about a device that has a master.
const enslaved = "master"

// readTunnels adds what is on the tunnel devices.
func (k *kernel) readTunnels(s *State) error {
	addresses, err := dumped("addresses", func() ([]netlink.Addr, error) { return k.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if device := k.name(a.LinkIndex); isDevice(device) {
			s.Addresses = append(s.Addresses, Address{Device: device, Prefix: prefixOf(a.IPNet)})
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		neighbours, err := k.listNeighbours(family)
		if err != nil {
			return err
		}
		for _, n := range neighbours {
			if device := k.name(n.index); isDevice(device) && n.ours() {
				s.Neighbours = append(s.Neighbours, Neighbour{Device: device, Addr: n.dst, MAC: n.mac, Different: n.different()})
			}
		}
	}
	forwards, err := k.listNeighbours(unix.AF_BRIDGE)
	if err != nil {
		return err
	}
	for _, n := range forwards {
		if device := k.name(n.index); isDevice(device) && n.flags&netlink.NTF_MASTER == 0 {
			s.Forwards = append(s.Forwards, Forward{Device: device, MAC: n.mac, To: n.dst, Different: n.different()})
		}
	}
	return nil
}

func (k *kernel) route(r netlink.Route) Route {
	route := Route{To: prefixOf(r.Dst), Via: addrOf(r.Gw), Onlink: r.Flags&unix.RTNH_F_ONLINK != 0, Metric: r.Priority, TOS: r.Tos}
	var odd []string
	if r.Type != unix.RTN_UNREACHABLE {
		route.Device = k.name(r.LinkIndex)
		if !route.Via.IsValid() {
			odd = append(odd, fmt.Sprintf("type %d dev %s", r.Type, route.Device))
		}
	}
	if len(r.MultiPath) > 0 {
		odd = append(odd, "nexthops")
	}
	if r.Src != nil {
		odd = append(odd, "src "+r.Src.String())
	}
	if r.MTU != 0 {
		odd = append(odd, fmt.Sprintf("mtu %d", r.MTU))
	}
	if r.Type != unix.RTN_UNREACHABLE && r.Type != unix.RTN_UNICAST {
		odd = append(odd, fmt.Sprintf("type %d", r.Type))
	}
	route.Different = strings.Join(odd, " ")
	return route
}

// listNeighbours lists the entries of a family's neighbour tables, or with AF_BRIDGE of forwarding databases.
func (k *kernel) listNeighbours(family int) ([]neighbour, error) {
	return dumped("neighbours", func() ([]neighbour, error) {
		request := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
		request.AddData(&netlink.Ndmsg{Family: uint8(family)}) //nolint:gosec // a constant
		messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
		if err != nil {
			return nil, err
		}
		all := make([]neighbour, 0, len(messages))
		for _, m := range messages {
			n, err := parseNeighbour(m)
			if err != nil {
				return nil, err
			}
			all = append(all, n)
		}
		return all, nil
	})
}
