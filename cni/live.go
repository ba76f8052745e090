package cni

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Connection is an entry of connection tracking, for people to look at.
type Connection struct {
	Protocol uint8 // IP protocol number
	// Source and Destination are those of the first packet, before it was
	// translated; without ports where the protocol has none.
	Source, Destination netip.AddrPort
	// ReplySource is who answers: the destination after it was translated.
	ReplySource netip.AddrPort
	// Cut says that the connection is marked: its packets are dropped or reset.
	Cut bool
}

// Connections lists the connections that are tracked in the network namespace
// of the calling thread. It walks through the whole table.
func Connections() ([]Connection, error) {
	var out []Connection
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		entries, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		if err != nil {
			return nil, fmt.Errorf("listing tracked connections: %w", err)
		}
		for _, e := range entries {
			out = append(out, Connection{
				Protocol:    e.Forward.Protocol,
				Source:      connectionEnd(e.Forward.SrcIP, e.Forward.SrcPort),
				Destination: connectionEnd(e.Forward.DstIP, e.Forward.DstPort),
				ReplySource: connectionEnd(e.Reverse.SrcIP, e.Reverse.SrcPort),
				Cut:         isCut(e.Labels),
			})
		}
	}
	return out, nil
}

func connectionEnd(ip net.IP, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port)
}

// isCut reads bit 127 of a connection's labels, which the kernel keeps as a
// bitmap of words in its own byte order.
func isCut(labels []byte) bool {
	const words, word = 16, 8
	return len(labels) == words && binary.NativeEndian.Uint64(labels[word:])>>63 != 0
}
