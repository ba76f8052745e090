package overlay

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/link"
)

// concerns says whether a change in the kernel may matter. Pods' links and what is on them, other
// links' neighbours, and routes to elsewhere change too often to look each time.
func (r *Reconciler) concerns(n link.Notice) bool {
	switch n.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return !strings.HasPrefix(n.Name, names.PodLink)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return r.isTunnel(n.Index)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return r.routeConcerns(n)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return n.Scope != unix.RT_SCOPE_LINK || r.isTunnel(n.Index)
	case unix.RTM_NEWNETCONF:
		return n.Index == link.AllLinks || r.isTunnel(n.Index) || r.isUplink(n.Index)
	default:
		return false
	}
}

// routeConcerns is true for our routes, for those that may have taken the place of one, and for
// those from router advertisements.
func (r *Reconciler) routeConcerns(n link.Notice) bool {
	if n.Table != unix.RT_TABLE_MAIN {
		return false
	}
	if n.Protocol == byte(RouteProtocol) || n.Protocol == unix.RTPROT_RA {
		return true
	}
	if endpoints := r.endpoints.Load(); endpoints != nil && covers(n.To, *endpoints) {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inputs == nil {
		return false
	}
	network := r.inputs.config.network(familyOf(n.To.Addr()))
	return network.Contains(n.To.Addr()) &&
		!n.To.IsSingleIP() // pods' own routes are of one address
}

// covers says whether one of the addresses, which are in order, is in a route's destination.
func covers(to netip.Prefix, addresses []netip.Addr) bool {
	i, _ := slices.BinarySearchFunc(addresses, to.Addr(), netip.Addr.Compare)
	return i < len(addresses) && to.Contains(addresses[i])
}

// isTunnel says whether an index is that of the tunnel device.
func (r *Reconciler) isTunnel(index int) bool { return int64(index) == r.tunnelIndex.Load() }

// isUplink says whether an index is that of an uplink.
func (r *Reconciler) isUplink(index int) bool {
	uplinks := r.uplinks.Load()
	return uplinks != nil && slices.Contains(*uplinks, index)
}
