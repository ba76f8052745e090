package server

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
)

// isListenedOn tells whether a socket in the network namespace of the calling thread takes what
// comes to a host port. Of SCTP it isn't known.
func isListenedOn(p cni.HostPort) (bool, error) {
	protocol, ok := map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[p.Protocol]
	if !ok {
		return false, nil
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		addrs, err := listeners(family, protocol, p.HostPort)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(addrs, func(addr netip.Addr) bool { return gets(addr, p) }) {
			return true, nil
		}
	}
	return false, nil
}

// gets tells whether a socket at that address would get what is for the host port.
func gets(addr netip.Addr, p cni.HostPort) bool {
	switch {
	// which most sockets have that take both families
	case !p.HostIP.IsValid(), addr == netip.IPv6Unspecified():
		return true
	case p.HostIP.Is4() != addr.Is4():
		return false
	}
	return p.HostIP == addr || p.HostIP.IsUnspecified() || addr.IsUnspecified()
}

// listeners is the addresses of sockets of a family and a protocol that wait for somebody at a port
// (sock_diag(7)).
func listeners(family, protocol uint8, port uint16) ([]netip.Addr, error) {
	const (
		// an unconnected UDP socket has the former; include/net/tcp_states.h
		stateClose, stateListen      = 7, 10
		requestSize, stateAt, portAt = 56, 4, 8
		sizeofMessage, addrAt        = 72, 8 // struct inet_diag_msg
	)
	body := make([]byte, requestSize) // struct inet_diag_req_v2
	body[0], body[1] = family, protocol
	states := uint32(1 << stateListen)
	if protocol == unix.IPPROTO_UDP {
		states = 1 << stateClose
	}
	binary.NativeEndian.PutUint32(body[stateAt:], states)
	binary.BigEndian.PutUint16(body[portAt:], port)
	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	request.AddRawData(body)
	messages, err := request.Execute(unix.NETLINK_INET_DIAG, 0)
	if err != nil {
		return nil, fmt.Errorf("listing sockets at port %d: %w", port, err)
	}
	var addrs []netip.Addr
	for _, m := range messages {
		if len(m) < sizeofMessage || binary.BigEndian.Uint16(m[4:]) != port {
			continue
		}
		length := 4
		if m[0] == unix.AF_INET6 {
			length = 16
		}
		addr, _ := netip.AddrFromSlice(m[addrAt : addrAt+length])
		addrs = append(addrs, addr)
	}
	return addrs, nil
}
