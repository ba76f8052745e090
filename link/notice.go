package link

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Notice is one change in the kernel, as far as it was announced.
type Notice struct {
	Type     uint16 // such as unix.RTM_NEWLINK
	Index    int    // of the link, for all but routes
	Name     string // of a link that came, changed or went
	Scope    uint8  // of an address
	Protocol uint8  // of a route
	Table    uint8  // of a route
	To       netip.Prefix
}

// AllLinks is the Index of a Notice about the settings of all links.
const AllLinks = -1

// parseNotice reads a notification's message. Those of unknown types are not ok.
func parseNotice(m syscall.NetlinkMessage) (n Notice, ok bool) {
	const indexAt = 4 // in struct ifinfomsg, ndmsg, ifaddrmsg and tcmsg
	n.Type = m.Header.Type
	switch n.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return n, n.parseRoute(m.Data)
	case unix.RTM_NEWNETCONF:
		const sizeofNetconfmsg, netconfaIfindex = 4, 1 // linux/netconf.h
		if len(m.Data) < sizeofNetconfmsg {
			return Notice{}, false
		}
		index := find(m.Data[sizeofNetconfmsg:], netconfaIfindex)
		n.Index = int(int32(number(index))) //nolint:gosec // as the kernel means it
		return n, len(index) > 0
	}
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return Notice{}, false
	}
	n.Index = int(
		int32(
			binary.NativeEndian.Uint32(m.Data[indexAt:]))) //nolint:gosec // as the kernel means it
	switch n.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(m.Data) < unix.SizeofIfInfomsg {
			return Notice{}, false
		}
		n.Name = unix.ByteSliceToString(find(m.Data[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME))
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		const scopeAt = 3
		n.Scope = m.Data[scopeAt]
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH, unix.RTM_NEWQDISC, unix.RTM_DELQDISC,
		unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER:
	default:
		return Notice{}, false
	}
	return n, true
}

func (n *Notice) parseRoute(m []byte) bool {
	const familyAt, lengthAt, tableAt, protocolAt = 0, 1, 4, 5 // in struct rtmsg
	if len(m) < unix.SizeofRtMsg {
		return false
	}
	n.Table, n.Protocol = m[tableAt], m[protocolAt]
	to := Addr(find(m[unix.SizeofRtMsg:], unix.RTA_DST))
	if !to.IsValid() { // a default route
		to = netip.IPv6Unspecified()
		if m[familyAt] == unix.AF_INET {
			to = netip.IPv4Unspecified()
		}
	}
	n.To = netip.PrefixFrom(to, int(m[lengthAt]))
	return true
}
