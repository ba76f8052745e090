package preflight

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/nft/others"
	"github.com/sluice-net/sluice/overlay"
)

func checkFirewall(o Options) Result {
	forward, err := others.Blockers(others.Forward)
	if err != nil {
		return judgeFirewall(o, nil, nil, err)
	}
	input, err := others.Blockers(others.Input)
	return judgeFirewall(o, forward, input, err)
}

// judgeFirewall says what others' chains mean that drop what none of their rules accepted. They may
// have rules that accept what pods need: only an agent tries it.
func judgeFirewall(o Options, forward, input []others.Blocker, err error) Result {
	const cant = "run this with CAP_NET_ADMIN and CAP_NET_RAW"
	const tunnelled = "the tunnel between nodes"
	var found []string
	for _, b := range forward {
		found = append(found, fmt.Sprint("pods' packets: ", b))
	}
	hasTunnel := !o.PolicyOnly && o.Config.Backend == overlay.VXLAN
	if hasTunnel {
		for _, b := range input {
			found = append(found, fmt.Sprint(tunnelled, ": ", b))
		}
	}
	switch {
	case err != nil:
		return warned(cant, "others' chains can't be read: %v", err)
	case len(found) == 0:
		return passed("no chain of others drops what it doesn't know")
	}
	remedy := "see that its rules accept packets from and to pods; the agent's flag " +
		"--forward-accept does so, except where another process owns the table"
	if hasTunnel && len(input) > 0 {
		remedy += fmt.Sprintf("; accept UDP port %d from all nodes", o.Config.Port)
	}
	return warned(remedy, "these drop what none of their rules accepts, %s", firstFew(found))
}

func checkLeftovers(o Options) Result {
	found, err := others.Leftovers()
	return judgeLeftovers(o, found, err)
}

// judgeLeftovers says what others' chains mean that are there whether or not their engine is. Those
// of a network that has no policies are in use where that wires the pods.
func judgeLeftovers(o Options, found []others.Leftover, err error) Result {
	found = slices.DeleteFunc(slices.Clone(found), func(l others.Leftover) bool {
		return o.PolicyOnly && l.Of == others.Flannel
	})
	switch {
	case err != nil:
		return warned("run this with CAP_NET_ADMIN and CAP_NET_RAW, or look with nft list ruleset "+
			"and iptables-legacy-save", "others' tables can't be read: %v", err)
	case len(found) == 0:
		return passed("no chains of another network or policy engine")
	}
	var all []string
	for _, l := range found {
		all = append(all, l.String())
	}
	return warned("remove that engine and what it left (its own cleanup, or a reboot), as its "+
		"rules may drop or translate pods' packets", "%s", firstFew(all))
}

// checkBridges looks at bridges with any address or route, as which podCIDRs there are isn't known
// here.
func checkBridges(o Options) Result {
	everywhere := []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0),
		netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	return judgeBridges(others.BridgesBypass(everywhere, o.SysctlDir))
}

// judgeBridges says what bridges mean whose packets don't pass the ruleset.
func judgeBridges(found []others.BridgeBypass, err error) Result {
	var all []string
	for _, b := range found {
		all = append(all, b.String())
	}
	switch {
	case err != nil:
		return warned("look at the links by hand", "bridges can't be read: %v", err)
	case len(found) == 0:
		return passed("no bridge leads packets past the rules")
	}
	return warned("load br_netfilter and set these sysctls at each boot, if pods are on the bridge",
		"%s", firstFew(all))
}
