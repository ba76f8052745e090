package testnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
)

// crowdMark is on the connections of FillTracking, to find them again.
const crowdMark = 0x5106

// FillTracking makes connections of hosts that no test means, which the kernel doesn't give up for
// others (assured TCP), until there is room for no other in the connection tracking of the thread's
// network namespace. Tracked connections that end make room again: made is how many were made
// before, 0 at first, and the new number is returned.
func FillTracking(made int) (int, error) {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC,
		unix.NETLINK_NETFILTER)
	if err != nil {
		return made, fmt.Errorf("opening a netlink socket: %w", err)
	}
	defer func() { _ = unix.Close(socket) }()
	limit, err := trackingNumber("max")
	if err != nil {
		return made, err
	}
	const batch = 200
	for most := made + 2*limit; ; {
		count, err := trackingNumber("count")
		if err != nil || count >= limit {
			return made, err
		}
		if made > most {
			return made, fmt.Errorf("after %d tries there are %d connections, want %d", 2*limit,
				count, limit)
		}
		var messages []byte
		for range min(batch, limit-count) {
			messages = append(messages, assured(made)...)
			made++
		}
		if err := unix.Sendto(socket, messages, 0,
			&unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return made, fmt.Errorf("making connections: %w", err)
		}
	}
}

// EmptyTracking removes what FillTracking made.
func EmptyTracking() error {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	r.AddData(&nl.Nfgenmsg{Version: nl.NFNETLINK_V0})
	mark := attribute.Append(nil, nl.CTA_MARK, binary.BigEndian.AppendUint32(nil, crowdMark))
	r.AddRawData(attribute.Append(mark, ctaMarkMask, []byte{255, 255, 255, 255}))
	_, err := r.Execute(unix.NETLINK_NETFILTER, 0)
	return err
}

const (
	ctaMarkMask = 21
	// The bits of an entry's status (nf_conntrack_common.h).
	seenReply, isAssured, confirmed = 1 << 1, 1 << 2, 1 << 3
)

// trackingNumber reads how many connections the thread's network namespace tracks, or may track.
func trackingNumber(name string) (int, error) {
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_" + name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// assured is the message that makes the nth connection.
func assured(n int) []byte {
	const networks = 56 // from 10.200.0.0/16 on
	port := uint16(1000 + n>>16/networks)
	client := netip.AddrPortFrom(
		netip.AddrFrom4([4]byte{10, byte(200 + n>>16%networks), byte(n >> 8), byte(n)}), port)
	server := netip.MustParseAddrPort("203.0.113.2:80")
	number := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	nested := func(kind int, parts ...[]byte) []byte {
		var content []byte
		for _, p := range parts {
			content = append(content, p...)
		}
		return attribute.Append(nil, uint16(kind)|unix.NLA_F_NESTED, content)
	}
	value := func(kind int, data []byte) []byte { return attribute.Append(nil, uint16(kind), data) }
	tuple := func(kind int, from, to netip.AddrPort) []byte {
		return nested(kind,
			nested(nl.CTA_TUPLE_IP, value(nl.CTA_IP_V4_SRC, from.Addr().AsSlice()),
				value(nl.CTA_IP_V4_DST, to.Addr().AsSlice())),
			nested(nl.CTA_TUPLE_PROTO, value(nl.CTA_PROTO_NUM, []byte{unix.IPPROTO_TCP}),
				value(nl.CTA_PROTO_SRC_PORT, binary.BigEndian.AppendUint16(nil, from.Port())),
				value(nl.CTA_PROTO_DST_PORT, binary.BigEndian.AppendUint16(nil, to.Port()))))
	}
	const established = 3
	var body []byte
	for _, part := range [][]byte{
		{unix.AF_INET, nl.NFNETLINK_V0, 0, 0},
		tuple(nl.CTA_TUPLE_ORIG, client, server), tuple(nl.CTA_TUPLE_REPLY, server, client),
		value(nl.CTA_STATUS, number(seenReply|isAssured|confirmed)),
		value(nl.CTA_TIMEOUT, number(600)), value(nl.CTA_MARK, number(crowdMark)),
		nested(nl.CTA_PROTOINFO,
			nested(nl.CTA_PROTOINFO_TCP, value(nl.CTA_PROTOINFO_TCP_STATE, []byte{established}))),
	} {
		body = append(body, part...)
	}
	m := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	m = binary.NativeEndian.AppendUint16(m, unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_NEW)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_CREATE)
	m = append(m, 0, 0, 0, 0, 0, 0, 0, 0)
	return append(m, body...)
}
