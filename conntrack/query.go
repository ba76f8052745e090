package conntrack

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Query is a request to the kernel for a list. The list may have more.
type Query struct {
	family  uint8      // AF_UNSPEC: both
	addr    netip.Addr // if valid, of this place
	place   place
	udpPort uint16 // if not 0, the destination of the original direction
}

// place is a place of an address in an entry.
type place struct {
	direction uint16 // nl.CTA_TUPLE_ORIG or nl.CTA_TUPLE_REPLY
	side      side
}

type side uint32

// The kernel's bits for them (CTA_FILTER).
const (
	source      side = 1 << 0
	destination side = 1 << 1
)

// attribute is the kernel's for an address on that side.
func (s side) attribute(addr netip.Addr) int {
	switch {
	case addr.Is4() && s == source:
		return nl.CTA_IP_V4_SRC
	case addr.Is4():
		return nl.CTA_IP_V4_DST
	case s == source:
		return nl.CTA_IP_V6_SRC
	}
	return nl.CTA_IP_V6_DST
}

// Anywhere lists the queries that find every entry which has the address on either side of either
// direction.
func Anywhere(addr netip.Addr) (out []Query) {
	for _, direction := range []uint16{nl.CTA_TUPLE_ORIG, nl.CTA_TUPLE_REPLY} {
		for _, side := range []side{source, destination} {
			out = append(out, query(addr, place{direction, side}))
		}
	}
	return out
}

// OpenedBy finds every entry whose opener has the address, before source translation.
func OpenedBy(addr netip.Addr) Query {
	return query(addr, place{nl.CTA_TUPLE_ORIG, source})
}

// AnsweredBy finds every entry in which the address answers, after destination translation.
func AnsweredBy(addr netip.Addr) Query {
	return query(addr, place{nl.CTA_TUPLE_REPLY, source})
}

// query finds an address at a place.
func query(addr netip.Addr, at place) Query {
	addr = addr.Unmap().WithZone("")
	family := uint8(unix.AF_INET)
	if addr.Is6() {
		family = unix.AF_INET6
	}
	return Query{family: family, addr: addr, place: at}
}

// ToUDPPort lists the queries that find every entry opened to a UDP port of an address; an invalid
// one stands for all addresses of both families.
func ToUDPPort(addr netip.Addr, port uint16) []Query {
	var out []Query
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if !addr.IsValid() || addr.Unmap().Is4() == (family == unix.AF_INET) {
			out = append(out, Query{family: family, udpPort: port})
		}
	}
	return out
}

// plan returns the queries to make for these, given the number of entries. Each query walks through
// the whole hash table, which is most of the work while there are few entries. So for few entries,
// or for many queries, plan is one walk for all.
func plan(queries []Query, entries int) []Query {
	queries = slices.Compact(slices.SortedFunc(slices.Values(queries), compareQueries))
	if len(queries) > 1 && !worthFiltering(queries, entries) {
		return []Query{unfiltered(queries)}
	}
	return queries
}

// worthFiltering compares by measurement (BenchmarkFind): a walk through an empty table takes as
// long as copying walkPrice entries, and passing by some entries as long as copying one. A filtered
// walk copies almost nothing.
func worthFiltering(queries []Query, entries int) bool {
	const walkPrice, passedForOne = 3000, 7
	return len(queries)*(walkPrice+entries/passedForOne) < walkPrice+entries
}

// unfiltered is the one query that finds all that these find.
func unfiltered(queries []Query) Query {
	family := queries[0].family
	if slices.ContainsFunc(queries, func(q Query) bool { return q.family != family }) {
		family = unix.AF_UNSPEC
	}
	return Query{family: family}
}

func compareQueries(a, b Query) int {
	return cmp.Or(cmp.Compare(a.family, b.family), a.addr.Compare(b.addr),
		cmp.Compare(a.place.direction, b.place.direction),
		cmp.Compare(a.place.side, b.place.side), cmp.Compare(a.udpPort, b.udpPort))
}

// Of linux/netfilter/nfnetlink_conntrack.h, what the library lacks.
const (
	attrFilter           = 25
	attrFilterOrigFlags  = 1
	attrFilterReplyFlags = 2

	filterProto, filterDstPort = 1 << 3, 1 << 5
)

func (q Query) request(t *Table) *nl.NetlinkRequest {
	r := t.request(q.family, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	var flags [2]uint32 // original, reply
	switch {
	case q.addr.IsValid():
		tuple := nl.NewRtAttr(int(q.place.direction)|unix.NLA_F_NESTED, nil)
		tuple.AddRtAttr(nl.CTA_TUPLE_IP|unix.NLA_F_NESTED, nil).
			AddRtAttr(q.place.side.attribute(q.addr), q.addr.AsSlice())
		r.AddData(tuple)
		flags[q.place.direction-nl.CTA_TUPLE_ORIG] = uint32(q.place.side)
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
