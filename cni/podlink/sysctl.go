package podlink

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/link"
)

// hostEndSysctls is the settings of the host end of a pod with these addresses, whose host ports
// may have IPv4: what the plugin sets at first, and the agent keeps. A new link takes its settings
// from the node's conf/default, which can be anything.
func hostEndSysctls(end string, addrs []netip.Addr, hasHostPort4 bool) []link.Sysctl {
	all := []link.Sysctl{
		link.Sysctl6(end, "accept_ra", 0),     // a pod is no router of the node
		link.Sysctl6(end, "accept_dad", 0),    // nobody else is on the link
		link.Sysctl6(end, "addr_gen_mode", 1), // no link-local address but ours
	}
	if cni.Has6(addrs) {
		all = append(all, link.Sysctl6(end, "disable_ipv6", 0))
	}
	if slices.ContainsFunc(addrs, netip.Addr.Is4) {
		// IPv6 has one switch for the whole node
		all = append(all, link.Sysctl4(end, "forwarding", 1))
	}
	if hasHostPort4 {
		// the node's processes reach host ports at 127.0.0.1
		all = append(all, link.Sysctl4(end, "route_localnet", 1))
	}
	return all
}

// podEndSysctls is the settings of the pod's end.
func podEndSysctls(end string, addrs []netip.Addr) []link.Sysctl {
	all := []link.Sysctl{link.Sysctl6(end, "accept_ra", 0), link.Sysctl6(end, "accept_dad", 0)}
	if cni.Has6(addrs) {
		// Some runtimes turn IPv6 off in a new namespace.
		all = append(all, link.Sysctl6(end, "disable_ipv6", 0))
	}
	return all
}

// settingsOf is some sysctls of a link as items. A kernel without a family has none of its.
func settingsOf(found link.Found, sysctls []link.Sysctl) link.State {
	var all link.State
	for _, s := range sysctls {
		if found.HasFamily(s.Family) {
			all = append(all, s)
		}
	}
	return all
}
