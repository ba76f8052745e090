package killpoint

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// netlinkCall says what messages to a netlink family would change, if anything (netlink(7),
// rtnetlink(7)).
func netlinkCall(family int, messages []byte) (Call, bool) {
	kinds := messageTypes(messages)
	if len(kinds) == 0 {
		return Call{}, false
	}
	switch family {
	case unix.NETLINK_NETFILTER:
		return netfilterCall(kinds)
	case unix.NETLINK_ROUTE:
		const action, get = 3, 2 // of each group of four
		return Call{Links, routeName(kinds[0])}, kinds[0] >= unix.RTM_BASE && kinds[0]&action != get
	}
	return Call{}, false
}

// messageTypes lists the types of messages in their order.
func messageTypes(messages []byte) []uint16 {
	var kinds []uint16
	for len(messages) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(messages))
		kinds = append(kinds, binary.NativeEndian.Uint16(messages[4:]))
		if length < unix.SizeofNlMsghdr || length > len(messages) {
			break
		}
		messages = messages[min(len(messages), (length+3)&^3):]
	}
	return kinds
}

// netfilterCall: a transaction of nftables begins with a message of its own, others are single.
func netfilterCall(kinds []uint16) (Call, bool) {
	const batchBegin = unix.NLMSG_MIN_TYPE
	if kinds[0] == batchBegin {
		return Call{Nftables, transaction(kinds)}, true
	}
	const conntrack, get = unix.NFNL_SUBSYS_CTNETLINK, 1
	subsystem, message := kinds[0]>>8, kinds[0]&0xff
	if subsystem != conntrack {
		return Call{}, false
	}
	switch message {
	case 0:
		return Call{Conntrack, "change an entry"}, true
	case 2:
		return Call{Conntrack, "delete entries"}, true
	}
	return Call{}, false
}

// transaction describes one of nftables by how many messages of which kinds it has.
func transaction(kinds []uint16) string {
	names := map[uint16]string{
		unix.NFT_MSG_NEWTABLE: "new table", unix.NFT_MSG_DELTABLE: "delete table",
		unix.NFT_MSG_NEWCHAIN: "new chain", unix.NFT_MSG_DELCHAIN: "delete chain",
		unix.NFT_MSG_NEWRULE: "new rule", unix.NFT_MSG_DELRULE: "delete rule",
		unix.NFT_MSG_NEWSET: "new set", unix.NFT_MSG_DELSET: "delete set",
		unix.NFT_MSG_NEWSETELEM: "new elements", unix.NFT_MSG_DELSETELEM: "delete elements",
	}
	count := map[string]int{}
	for _, kind := range kinds {
		if kind>>8 == unix.NFNL_SUBSYS_NFTABLES {
			name, known := names[kind&0xff]
			if !known {
				name = fmt.Sprintf("message %d", kind&0xff)
			}
			count[name]++
		}
	}
	var parts []string
	for name, n := range count {
		parts = append(parts, fmt.Sprintf("%s ×%d", name, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func routeName(kind uint16) string {
	object, known := map[uint16]string{
		unix.RTM_NEWLINK: "link", unix.RTM_NEWADDR: "address", unix.RTM_NEWROUTE: "route",
		unix.RTM_NEWNEIGH: "neighbour",
		unix.RTM_NEWQDISC: "queueing",
	}[kind&^3]
	if !known {
		object = fmt.Sprintf("message %d", kind)
	}
	return []string{"new ", "delete ", "get ", "set "}[kind&3] + object
}
