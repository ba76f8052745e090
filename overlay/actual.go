package overlay

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/link"
)

// sight is what one look at the kernel has shown.
type sight struct {
	kernel    *link.Kernel
	addresses []netlink.Addr  // of all links
	routes    []netlink.Route // ours, default routes, and those from router advertisements
}

// look reads the links and addresses of the network namespace of the calling thread, and has
// changes of what is on the tunnel device noticed from then on.
func (r *Reconciler) look(k *link.Kernel, tunnel string) (sight, error) {
	if err := k.Look(); err != nil {
		return sight{}, err
	}
	r.tunnelIndex.Store(int64(k.Links()[tunnel].Index)) // 0 if there is none
	addresses, err := k.Addresses()
	return sight{kernel: k, addresses: addresses}, err
}

// readRoutes adds the routes.
func (s *sight) readRoutes() (err error) {
	s.routes, err = s.kernel.Routes(func(r netlink.Route) bool {
		return r.Protocol == RouteProtocol || r.Protocol == unix.RTPROT_RA || isDefault(r)
	})
	return err
}

func isDefault(r netlink.Route) bool { return r.Dst == nil || link.Prefix(r.Dst).Bits() == 0 }

// links is those on which the node can have its addresses: all but tunnels that have one that isn't
// link-local. Their order is always the same: of two with one address, the first counts.
func (s sight) links() []Link {
	prefixes := map[string][]netip.Prefix{}
	for _, a := range s.addresses {
		if p := link.Prefix(a.IPNet); p.IsValid() && !p.Addr().IsLinkLocalUnicast() {
			name := s.kernel.Name(a.LinkIndex)
			prefixes[name] = append(prefixes[name], p)
		}
	}
	var links []Link
	byIndex := func(a, b link.Found) int { return cmp.Compare(a.Index, b.Index) }
	for _, found := range slices.SortedFunc(maps.Values(s.kernel.Links()), byIndex) {
		name := found.Name
		if len(prefixes[name]) > 0 && !isDevice(name) {
			links = append(links, Link{
				Name: name, MTU: found.MTU, Prefixes: prefixes[name],
				Loopback: found.Loopback || found.Type == "dummy",
			})
		}
	}
	return links
}

// isDevice says whether a link's name is that of a tunnel device, of whatever VNI.
func isDevice(name string) bool {
	vni, found := strings.CutPrefix(name, names.Tunnel)
	return found && vni != "" && strings.Trim(vni, "0123456789") == ""
}

// state is what is there and ours: all tunnel devices with everything on them, and routes of our
// protocol.
func (s sight) state() (link.State, error) {
	var all link.State
	for name, found := range s.kernel.Links() {
		if !isDevice(name) {
			continue
		}
		device, err := s.kernel.LinkByIndex(found.Index)
		if isNoLink(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading link %s: %w", name, err)
		}
		all = append(all, s.tunnel(device, found))
	}
	if len(all) > 0 {
		for _, a := range s.addresses {
			if address := s.kernel.AddressOf(a); isDevice(address.Link) {
				all = append(all, address)
			}
		}
		neighbours, err := s.kernel.Neighbours(isDevice)
		if err != nil {
			return nil, err
		}
		forwards, err := s.kernel.Forwards(isDevice)
		if err != nil {
			return nil, err
		}
		all = append(append(all, neighbours...), forwards...)
	}
	for _, r := range s.routes {
		if r.Protocol == RouteProtocol {
			all = append(all, s.kernel.RouteOf(r))
		}
	}
	return all, nil
}

func isNoLink(err error) bool {
	_, notFound := errors.AsType[netlink.LinkNotFoundError](err)
	return notFound
}

// tunnel is a tunnel device as it is.
func (s sight) tunnel(device netlink.Link, found link.Found) Tunnel {
	t := Tunnel{Name: found.Name, MAC: found.MAC, MTU: found.MTU, Up: found.Up}
	vxlan, isVXLAN := device.(*netlink.Vxlan)
	if !isVXLAN {
		t.Different = "type " + device.Type()
		return t
	}
	t.VNI = uint32(vxlan.VxlanId) //nolint:gosec // it has 24 bits
	t.Port = uint16(vxlan.Port)   //nolint:gosec // it has 16 bits
	t.Local = link.Addr(vxlan.SrcAddr)
	if vxlan.VtepDevIndex != 0 {
		t.Below = s.kernel.Name(vxlan.VtepDevIndex)
	}
	t.Learning, t.Checksum = vxlan.Learning, vxlan.UDPCSum
	t.ZeroTx6, t.ZeroRx6 = vxlan.UDP6ZeroCSumTx, vxlan.UDP6ZeroCSumRx
	var odd []string
	for _, option := range []struct {
		on   bool
		name string
	}{
		{vxlan.MasterIndex != 0, enslaved},
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
