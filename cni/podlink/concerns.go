package podlink

import (
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/link"
)

// concerns says whether a change in the kernel may matter to pods' links.
func (h *Keeper) concerns(n link.Notice) bool {
	switch n.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return isOurs(n.Name)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		// An address of the node can be what routes to pods have as their source.
		return n.Scope != unix.RT_SCOPE_LINK || h.isWatched(n.Index)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH, unix.RTM_NEWQDISC, unix.RTM_DELQDISC,
		unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER:
		return h.isWatched(n.Index)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		// Ours, and those that may have taken the place of one: of a single address, as a pod's.
		return n.Table == unix.RT_TABLE_MAIN &&
			(n.Protocol == byte(RouteProtocol) || n.To.IsSingleIP())
	default:
		return false
	}
}

// isWatched says whether an index is that of a pod's link or shaping device.
func (h *Keeper) isWatched(index int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.watched[index]
}
