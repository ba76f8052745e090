package podlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/internal/attribute"
)

// wholeDump repeats a listing that the kernel interrupts because something changed meanwhile: half
// of one must not pass for the whole.
func wholeDump[T any](what string, dump func() (T, error)) (T, error) {
	const attempts = 10
	for i := 1; ; i++ {
		all, err := dump()
		if err == nil {
			return all, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) || i == attempts {
			return all, fmt.Errorf("listing %s: %w", what, err)
		}
	}
}

// podLinksHere is the links of pods and their shaping devices, by name. Their sysctls are in the
// same answer of the kernel, so that looking at them costs no file each.
func podLinksHere() (map[string]podLink, error) {
	return wholeDump("links", func() (map[string]podLink, error) {
		request := linkRequest(unix.NLM_F_DUMP)
		links := map[string]podLink{}
		err := request.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWLINK, func(m []byte) bool {
			if link, ok := parsePodLink(m); ok {
				links[link.name] = link
			}
			return true
		})
		return links, err
	})
}

func linkRequest(flags int) *nl.NetlinkRequest {
	const skipStatistics = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, flags)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics)))
	return request
}

// linkHere is the pod's link of that name. Where there is none its error is errNoLink.
func linkHere(name string) (podLink, error) {
	request := linkRequest(0)
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if errors.Is(err, unix.ENODEV) {
		return podLink{}, fmt.Errorf("%w %s", errNoLink, name)
	}
	if err != nil {
		return podLink{}, fmt.Errorf("looking for link %s: %w", name, err)
	}
	for _, m := range messages {
		if link, ok := parsePodLink(m); ok && link.name == name {
			return link, nil
		}
	}
	return podLink{}, fmt.Errorf("%w %s of a pod", errNoLink, name)
}

var errNoLink = errors.New("there is no link")

// parsePodLink reads an RTM_NEWLINK message: struct ifinfomsg and attributes. Other links than
// pods' and their shaping devices are not ok.
func parsePodLink(m []byte) (link podLink, ok bool) {
	const indexAt, flagsAt = 4, 8
	if len(m) < unix.SizeofIfInfomsg {
		return podLink{}, false
	}
	link.index = int(binary.NativeEndian.Uint32(m[indexAt:]))
	flags := binary.NativeEndian.Uint32(m[flagsAt:])
	link.up, link.noARP = flags&unix.IFF_UP != 0, flags&unix.IFF_NOARP != 0
	link.hasCarrier = flags&unix.IFF_RUNNING != 0
	for kind, value := range attribute.All(m[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			link.name = unix.ByteSliceToString(value)
		case unix.IFLA_ADDRESS:
			copy(link.mac[:], value)
		case unix.IFLA_MTU:
			link.mtu = int(number(value))
		case unix.IFLA_IFALIAS:
			link.alias = unix.ByteSliceToString(value)
		case unix.IFLA_LINKINFO:
			for kind, value := range attribute.All(value) {
				if kind == unix.IFLA_INFO_KIND {
					link.isIFB = unix.ByteSliceToString(value) == "ifb"
				}
			}
		case unix.IFLA_AF_SPEC:
			link.parseSysctls(value)
		}
	}
	return link, cni.IsInterfaceName(link.name) || isShapeName(link.name)
}

// parseSysctls reads the settings of each family, which are numbered in linux/ip.h and
// linux/ipv6.h.
func (l *podLink) parseSysctls(spec []byte) {
	const (
		inetConf, inet6Conf, inet6AddrGenMode = 1, 2, 8
		forwarding, routeLocalnet             = 1, 26 // numbered from 1
		acceptRA, disableIPv6, acceptDAD      = 3, 26, 27
	)
	for family, value := range attribute.All(spec) {
		for kind, value := range attribute.All(value) {
			switch {
			case family == unix.AF_INET && kind == inetConf:
				l.conf4 = map[string]int32{"forwarding": setting(value, forwarding-1), "route_localnet": setting(value, routeLocalnet-1)}
			case family == unix.AF_INET6 && kind == inet6Conf:
				l.conf6 = map[string]int32{
					"accept_ra": setting(value, acceptRA), "disable_ipv6": setting(value, disableIPv6), "accept_dad": setting(value, acceptDAD),
				}
			case family == unix.AF_INET6 && kind == inet6AddrGenMode && l.conf6 != nil && len(value) > 0: // comes after the others
				l.conf6["addr_gen_mode"] = int32(value[0])
			}
		}
	}
}

// setting is the one at index i of an array, or what no setting is.
func setting(array []byte, i int) int32 {
	const size, none = 4, -1 << 31
	if len(array) < (i+1)*size {
		return none
	}
	return int32(binary.NativeEndian.Uint32(array[i*size:])) //nolint:gosec // as the kernel means it
}

func number(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}

// actualHost is what is there and ours to compare with the desired state: that of the host ends,
// and shaping that should be.
func (s space) actualHost(
	desired hostState, phases map[string]phase, links map[string]podLink, addresses []netlink.Addr, routes []netlink.Route,
) (hostState, error) {
	actual, err := s.actualHostEnds(desired, phases, links, addresses, routes)
	if err == nil && len(desired.shapers) > 0 {
		err = s.readShaping(&actual, desired, links)
	}
	return actual, err
}

// actualHostEnds is everything on links that are looked after, and routes of our protocol. What is
// on links that are fresh or foreign isn't in it.
func (s space) actualHostEnds(
	desired hostState, phases map[string]phase, links map[string]podLink, addresses []netlink.Addr, routes []netlink.Route,
) (hostState, error) {
	actual := hostState{links: linksOf(phases, links), routes: routesTo(phases, links, routes)}
	names := map[int]string{} // of links that are looked after
	for name, p := range phases {
		if p == settled {
			names[links[name].index] = name
		}
	}
	for _, want := range desired.sysctls {
		actual.sysctls = append(actual.sysctls, links[want.link].settings([]linkSysctl{want})...)
	}
	for _, a := range addresses {
		if name, ours := names[a.LinkIndex]; ours {
			actual.addresses = append(actual.addresses, hostAddressOf(name, a))
		}
	}
	var err error
	actual.neighbours, err = s.neighboursOn(names)
	return actual, err
}

func linksOf(phases map[string]phase, links map[string]podLink) []hostLink {
	var all []hostLink
	for name, link := range links {
		switch {
		case phases[name] == settled:
			all = append(all, link.hostLink)
		case isShapeName(name):
			all = append(all, hostLink{name: name, isIFB: link.isIFB, up: link.up})
		}
	}
	return all
}

func hostAddressOf(link string, a netlink.Addr) hostAddress {
	addr := hostAddress{link: link, prefix: netipPrefix(a.IPNet)}
	var odd []string
	if a.Flags&unix.IFA_F_PERMANENT == 0 {
		odd = append(odd, "temporary")
	}
	if a.Flags&unix.IFA_F_DADFAILED != 0 {
		odd = append(odd, "dadfailed")
	}
	addr.different = strings.Join(odd, " ")
	return addr
}

// neighboursOn is the permanent neighbours on the links with these indexes. The kernel makes others
// by itself, and forgets them.
func (s space) neighboursOn(names map[int]string) ([]hostNeighbour, error) {
	var ours []hostNeighbour
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := wholeDump("neighbours", func() ([]netlink.Neigh, error) { return s.NeighList(0, family) })
		if err != nil {
			return nil, err
		}
		for _, n := range all {
			if name, found := names[n.LinkIndex]; found && n.State&netlink.NUD_PERMANENT != 0 {
				var mac macAddr
				copy(mac[:], n.HardwareAddr)
				ours = append(ours, hostNeighbour{name, addrOf(n.IP), mac})
			}
		}
	}
	return ours, nil
}

// ourRoutes is the routes of our protocol in the main table. Links must be listed after them: a
// route whose link isn't there then is of no pod. The other way round it could be that of a pod
// that has come meanwhile.
func (s space) ourRoutes() ([]netlink.Route, error) {
	return wholeDump("routes", func() ([]netlink.Route, error) {
		return s.Handle.Handle.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	})
}

// routesTo is our routes, but for those on links that aren't looked after.
func routesTo(phases map[string]phase, links map[string]podLink, routes []netlink.Route) []hostRoute {
	names := map[int]string{}
	for name, link := range links {
		names[link.index] = name
	}
	var ours []hostRoute
	for _, r := range routes {
		name := names[r.LinkIndex]
		if p, known := phases[name]; known && p != settled {
			continue
		}
		ours = append(ours, hostRouteOf(name, r))
	}
	return ours
}

func hostRouteOf(link string, r netlink.Route) hostRoute {
	route := hostRoute{link: link, src: addrOf(r.Src), metric: r.Priority, tos: r.Tos}
	if r.Dst != nil {
		route.to = netipPrefix(r.Dst)
	}
	var odd []string
	switch {
	case r.Type == unix.RTN_UNREACHABLE:
		route.link = "" // the kernel says lo for IPv6
	case r.Type != unix.RTN_UNICAST:
		odd = append(odd, fmt.Sprintf("type %d", r.Type))
	case link == "":
		odd = append(odd, fmt.Sprintf("dev if%d", r.LinkIndex))
	case route.to.Addr().Is4() && r.Scope != netlink.SCOPE_LINK:
		odd = append(odd, fmt.Sprintf("scope %d", r.Scope))
	}
	if r.Gw != nil || r.Via != nil || len(r.MultiPath) > 0 {
		odd = append(odd, "gateway")
	}
	if r.MTU != 0 || r.AdvMSS != 0 || r.Encap != nil {
		odd = append(odd, "options")
	}
	route.different = strings.Join(odd, " ")
	return route
}

// readShaping adds the shapers and redirects that are where the desired ones should be.
func (s space) readShaping(actual *hostState, desired hostState, links map[string]podLink) error {
	all, err := wholeDump("queueing disciplines", func() ([]netlink.Qdisc, error) { return s.Handle.Handle.QdiscList(nil) })
	if err != nil {
		return err
	}
	for _, q := range all {
		tbf, isTBF := q.(*netlink.Tbf)
		if !isTBF || q.Attrs().Parent != netlink.HANDLE_ROOT {
			continue
		}
		i := slices.IndexFunc(desired.shapers, func(want shaper) bool { return links[want.link].index == q.Attrs().LinkIndex })
		if i >= 0 {
			actual.shapers = append(actual.shapers, shaperOf(desired.shapers[i], tbf))
		}
	}
	for _, want := range desired.redirects {
		link := links[want.link]
		if !slices.ContainsFunc(all, func(q netlink.Qdisc) bool {
			return q.Attrs().LinkIndex == link.index && q.Attrs().Parent == netlink.HANDLE_INGRESS && q.Type() == "ingress"
		}) {
			continue
		}
		filters, err := wholeDump("filters", func() ([]netlink.Filter, error) { return s.listFilters(link.index) })
		if err != nil {
			return err
		}
		if to, found := links[want.to]; !found || !isRedirect(filters, to.index) {
			want.different = "other filters"
		}
		actual.redirects = append(actual.redirects, want)
	}
	return nil
}

// ingressHandle is how filters name the qdisc whose parent is netlink.HANDLE_INGRESS.
var ingressHandle = netlink.MakeHandle(0xffff, 0)

func (s space) listFilters(index int) ([]netlink.Filter, error) {
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
	return s.Handle.Handle.FilterList(link, ingressHandle)
}

// isRedirect tells whether filters are the one that we make: all to the link of that index.
func isRedirect(filters []netlink.Filter, index int) bool {
	var found int
	for _, f := range filters {
		u32, isU32 := f.(*netlink.U32)
		if !isU32 {
			return false
		}
		if u32.Sel == nil || len(u32.Actions) == 0 {
			continue // the kernel's own entries for the hash table
		}
		mirred, isMirred := u32.Actions[0].(*netlink.MirredAction)
		isAll := len(u32.Sel.Keys) == 1 && u32.Sel.Keys[0].Mask == 0
		if !isMirred || !isAll || len(u32.Actions) != 1 || mirred.Ifindex != index || mirred.MirredAction != netlink.TCA_EGRESS_REDIR ||
			u32.Attrs().Protocol != unix.ETH_P_ALL {
			return false
		}
		found++
	}
	return found == 1
}

// shaperOf is what is there in the place of the wanted one. The kernel tells the burst as the time
// that it takes, in ticks of 64 ns of which the lowest 32 bits remain, so ours is recognized rather
// than read.
func shaperOf(want shaper, tbf *netlink.Tbf) shaper {
	got := shaper{link: want.link, rate: tbf.Rate, limit: tbf.Limit}
	const perSecond = 1e9 / 64
	ticks := uint64(float64(want.burst) / float64(want.rate) * perSecond)
	off := tbf.Buffer - uint32(ticks)                                                                      //nolint:gosec // the lowest 32 bits
	if tolerance := uint32(min(ticks>>24, 1<<28)) + 4; off+tolerance <= 2*tolerance && tbf.Peakrate == 0 { //nolint:gosec // small
		got.burst = want.burst
	}
	return got
}

// addrOf is the zero Addr for what is no address.
func addrOf(ip []byte) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

func netipPrefix(n *net.IPNet) netip.Prefix {
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}
