package cni

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// forgetConnections deletes from connection tracking, in the network namespace of the calling thread, each connection that has one
// of the addresses on either side of either direction. Otherwise the next pod with the address inherits what the last one was
// allowed. Deleting what is gone meanwhile is no error.
func forgetConnections(addrs []netip.Addr) error {
	wanted := map[netip.Addr]bool{}
	var queries []conntrackQuery
	for _, addr := range addrs {
		addr = addr.Unmap().WithZone("")
		if !addr.IsValid() || wanted[addr] {
			continue
		}
		wanted[addr] = true
		queries = append(queries, queriesForAddr(addr)...)
	}
	err := forget(queries, func(c connection) bool {
		return wanted[c.orig.src] || wanted[c.orig.dst] || wanted[c.reply.src] || wanted[c.reply.dst]
	})
	if err != nil {
		return fmt.Errorf("forgetting the connections of %s: %w", addrs, err)
	}
	return nil
}

// forgetHostPorts deletes the UDP connections to these host ports, in the network namespace of the calling thread. A client that
// keeps sending keeps its entry alive, and with it the way to the port's last owner, or to none. TCP and SCTP begin anew by themselves.
func forgetHostPorts(ports []HostPort) error {
	var udp []HostPort
	var queries []conntrackQuery
	for _, p := range ports {
		if p.Protocol != "udp" {
			continue
		}
		udp = append(udp, p)
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			if !p.HostIP.IsValid() || p.HostIP.Unmap().Is4() == (family == unix.AF_INET) {
				queries = append(queries, conntrackQuery{family: family, udpPort: p.HostPort})
			}
		}
	}
	err := forget(queries, func(c connection) bool {
		return slices.ContainsFunc(udp, func(p HostPort) bool { return isTo(c, p) })
	})
	if err != nil {
		return fmt.Errorf("forgetting the connections to host ports %v: %w", udp, err)
	}
	return nil
}

// isTo tells whether a connection was opened to a UDP host port.
func isTo(c connection, p HostPort) bool {
	host := p.HostIP.Unmap()
	switch {
	case c.orig.proto != unix.IPPROTO_UDP || c.orig.dstPort != p.HostPort:
		return false
	case !host.IsValid():
		return true
	case host.IsUnspecified():
		return host.Is4() == c.orig.dst.Is4()
	default:
		return host == c.orig.dst
	}
}

// conntrackQuery is what the kernel is asked to list. It may list more: every entry is looked at again.
type conntrackQuery struct {
	family  uint8      // AF_UNSPEC: both
	addr    netip.Addr // if valid (IPv4 only), of this place
	place   addrPlace
	udpPort uint16 // if not 0, the destination of the original direction
}

// addrPlace is where in an entry an address is.
type addrPlace struct {
	direction uint16 // nl.CTA_TUPLE_ORIG or nl.CTA_TUPLE_REPLY
	side      uint16 // nl.CTA_IP_V4_SRC or nl.CTA_IP_V4_DST
}

// queriesForAddr are those that find an address wherever it is. The kernel's own filter for IPv6 addresses (since Linux 5.8) finds
// those that it should leave out, so all entries of that family are listed.
func queriesForAddr(addr netip.Addr) []conntrackQuery {
	if addr.Is6() {
		return []conntrackQuery{{family: unix.AF_INET6}}
	}
	var queries []conntrackQuery
	for _, direction := range []uint16{nl.CTA_TUPLE_ORIG, nl.CTA_TUPLE_REPLY} {
		for _, side := range []uint16{nl.CTA_IP_V4_SRC, nl.CTA_IP_V4_DST} {
			queries = append(queries, conntrackQuery{family: unix.AF_INET, addr: addr, place: addrPlace{direction, side}})
		}
	}
	return queries
}

// forget deletes the entries that match among those that the queries find. A query walks through the whole table, even an empty one,
// which is most of the work while there are few entries; so then, or with many queries, it is one walk for all.
func forget(queries []conntrackQuery, match func(connection) bool) error {
	if len(queries) == 0 {
		return nil
	}
	t, err := openConntrack()
	if err != nil {
		return err
	}
	defer t.close()
	entries, err := t.count()
	if err != nil || entries == 0 {
		return err
	}
	if !worthFiltering(queries, entries) {
		queries = []conntrackQuery{unfiltered(queries)}
	}
	for _, q := range slices.Compact(slices.SortedFunc(slices.Values(queries), compareQueries)) {
		found, err := t.list(q, match)
		if err != nil {
			return err
		}
		for _, c := range found {
			if err := t.remove(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// worthFiltering compares what was measured: a walk takes as long as copying walkPrice entries, and a filtered one copies next to
// nothing.
func worthFiltering(queries []conntrackQuery, entries int) bool {
	const walkPrice, mostQueries = 3000, 8
	return len(queries) == 1 || len(queries) <= mostQueries && (len(queries)-1)*walkPrice < entries
}

// unfiltered is the one query that finds what all of them find.
func unfiltered(queries []conntrackQuery) conntrackQuery {
	family := queries[0].family
	if slices.ContainsFunc(queries, func(q conntrackQuery) bool { return q.family != family }) {
		family = unix.AF_UNSPEC
	}
	return conntrackQuery{family: family}
}

func compareQueries(a, b conntrackQuery) int {
	return cmp.Or(cmp.Compare(a.family, b.family), a.addr.Compare(b.addr), cmp.Compare(a.place.direction, b.place.direction),
		cmp.Compare(a.place.side, b.place.side), cmp.Compare(a.udpPort, b.udpPort))
}

// conntrack is the kernel's table of connections in one network namespace.
type conntrack struct{ handle *nl.SocketHandle }

// openConntrack opens the table in the network namespace of the calling thread.
func openConntrack() (conntrack, error) {
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return conntrack{}, fmt.Errorf("opening a netfilter socket: %w", err)
	}
	const patience = 10 // seconds, for one message
	timeout := unix.Timeval{Sec: patience}
	if err := errors.Join(socket.SetReceiveTimeout(&timeout), socket.SetSendTimeout(&timeout)); err != nil {
		socket.Close()
		return conntrack{}, fmt.Errorf("preparing a netfilter socket: %w", err)
	}
	return conntrack{&nl.SocketHandle{Socket: socket}}, nil
}

func (t conntrack) close() { t.handle.Close() }

// Of linux/netfilter/nfnetlink_conntrack.h, what the library lacks.
const (
	msgGetStats        = 5
	statsGlobalEntries = 1

	attrFilter           = 25
	attrFilterOrigFlags  = 1
	attrFilterReplyFlags = 2

	filterSrc, filterDst, filterProto, filterDstPort = 1 << 0, 1 << 1, 1 << 3, 1 << 5
)

func (t conntrack) request(family uint8, message, flags int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(netlink.ConntrackTable<<8|message, flags)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: t.handle}
	r.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return r
}

// count is the number of entries of both families.
func (t conntrack) count() (int, error) {
	// The answer says that more of it follows, which is the acknowledgement alone.
	messages, err := t.request(unix.AF_UNSPEC, msgGetStats, unix.NLM_F_ACK).Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return 0, fmt.Errorf("counting connections: %w", err)
	}
	for _, m := range messages {
		for kind, value := range attributes(m[min(len(m), nl.SizeofNfgenmsg):]) {
			if kind == statsGlobalEntries && len(value) == 4 {
				return int(binary.BigEndian.Uint32(value)), nil
			}
		}
	}
	return 0, errors.New("counting connections: the kernel doesn't say")
}

// list returns the entries of a query that match. A listing that somebody's change cut short is begun again.
func (t conntrack) list(q conntrackQuery, match func(connection) bool) ([]connection, error) {
	const attempts = 10
	for i := 1; ; i++ {
		var found []connection
		err := q.request(t).ExecuteIter(unix.NETLINK_NETFILTER, 0, func(m []byte) bool {
			if c, ok := parseConnection(m); ok && match(c) {
				found = append(found, c)
			}
			return true
		})
		if err == nil {
			return found, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) || i == attempts {
			return nil, fmt.Errorf("listing connections: %w", err)
		}
	}
}

func (q conntrackQuery) request(t conntrack) *nl.NetlinkRequest {
	r := t.request(q.family, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	var flags [2]uint32 // original, reply
	switch {
	case q.addr.IsValid():
		tuple := nl.NewRtAttr(int(q.place.direction)|unix.NLA_F_NESTED, nil)
		tuple.AddRtAttr(nl.CTA_TUPLE_IP|unix.NLA_F_NESTED, nil).AddRtAttr(int(q.place.side), q.addr.AsSlice())
		r.AddData(tuple)
		flag := uint32(filterSrc)
		if q.place.side == nl.CTA_IP_V4_DST {
			flag = filterDst
		}
		flags[q.place.direction-nl.CTA_TUPLE_ORIG] = flag
	case q.udpPort != 0:
		tuple := nl.NewRtAttr(nl.CTA_TUPLE_ORIG|unix.NLA_F_NESTED, nil)
		proto := tuple.AddRtAttr(nl.CTA_TUPLE_PROTO|unix.NLA_F_NESTED, nil)
		proto.AddRtAttr(nl.CTA_PROTO_NUM, []byte{unix.IPPROTO_UDP})
		proto.AddRtAttr(nl.CTA_PROTO_DST_PORT, nl.BEUint16Attr(q.udpPort))
		r.AddData(tuple)
		flags[0] = filterProto | filterDstPort
	default:
		return r
	}
	filter := nl.NewRtAttr(attrFilter|unix.NLA_F_NESTED, nil)
	filter.AddRtAttr(attrFilterOrigFlags, nl.Uint32Attr(flags[0]))
	filter.AddRtAttr(attrFilterReplyFlags, nl.Uint32Attr(flags[1]))
	r.AddData(filter)
	return r
}

// remove deletes the entry with exactly this tuple and zone.
func (t conntrack) remove(c connection) error {
	r := t.request(c.family, nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	r.AddRawData(c.name())
	_, err := r.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("deleting the connection from %s to %s: %w", c.orig.src, c.orig.dst, err)
	}
	return nil
}
