package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/names"
)

// watch asks for a pass whenever the kernel tells of a change that may concern us, until stop is called.
func (r *Reconciler) watch() (stop func(), err error) {
	var socket *nl.NetlinkSocket
	err = r.do(func() (err error) {
		socket, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR,
			unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("subscribing to netlink notifications: %w", err)
	}
	const roomForABurst = 4 << 20 // bytes
	// What doesn't fit is reported as lost, which leads to a pass as well.
	_ = socket.SetReceiveBufferSize(roomForABurst, true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.receive(socket)
	}()
	return func() {
		socket.Close()
		<-done
	}, nil
}

func (r *Reconciler) receive(socket *nl.NetlinkSocket) {
	for {
		messages, from, err := socket.Receive()
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, unix.ENOBUFS):
			r.poke()
			continue
		case err != nil:
			r.options.Log.Error(err, "Receiving netlink notifications: from now on only the slow tick heals")
			return
		case from.Pid != nl.PidKernel:
			continue
		}
		if slices.ContainsFunc(messages, r.concerns) {
			r.poke()
		}
	}
}

// concerns says whether a change may matter. Pods' links and what is on them, other links' neighbours, and routes to elsewhere change
// too often to look each time.
func (r *Reconciler) concerns(m syscall.NetlinkMessage) bool {
	const indexAt = 4 // in struct ndmsg and struct ifaddrmsg
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return !strings.HasPrefix(string(attribute(m, unix.SizeofIfInfomsg, unix.IFLA_IFNAME)), names.PodLink)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return len(m.Data) >= unix.SizeofNdMsg && r.isTunnel(m.Data[indexAt:])
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return r.routeConcerns(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		const scopeAt = 3
		return len(m.Data) >= unix.SizeofIfAddrmsg && (m.Data[scopeAt] != unix.RT_SCOPE_LINK || r.isTunnel(m.Data[indexAt:]))
	case unix.RTM_NEWNETCONF:
		const sizeofNetconfmsg, netconfaIfindex, all = 4, 1, -1 // linux/netconf.h
		index := attribute(m, sizeofNetconfmsg, netconfaIfindex)
		return len(index) >= 4 && (int32(binary.NativeEndian.Uint32(index)) == all || r.isTunnel(index) || r.isUplink(index)) //nolint:gosec // as the kernel means it
	default:
		return false
	}
}

// routeConcerns is true for our routes, for those that may have taken the place of one, and for those from router advertisements.
func (r *Reconciler) routeConcerns(m syscall.NetlinkMessage) bool {
	const lengthAt, tableAt, protocolAt = 1, 4, 5 // in struct rtmsg
	if len(m.Data) < unix.SizeofRtMsg || m.Data[tableAt] != unix.RT_TABLE_MAIN {
		return false
	}
	if p := m.Data[protocolAt]; p == byte(RouteProtocol) || p == unix.RTPROT_RA {
		return true
	}
	to := addrOf(attribute(m, unix.SizeofRtMsg, unix.RTA_DST))
	if endpoints := r.endpoints.Load(); endpoints != nil && covers(to, int(m.Data[lengthAt]), *endpoints) {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inputs == nil || !to.IsValid() {
		return false
	}
	network := r.inputs.config.network(familyOf(to))
	return network.Contains(to) && int(m.Data[lengthAt]) < to.BitLen() // pods' own routes are of one address
}

// covers says whether one of the addresses, which are in order, is in a route's destination; a default route has none.
func covers(to netip.Addr, bits int, addresses []netip.Addr) bool {
	if !to.IsValid() {
		return bits == 0
	}
	prefix := netip.PrefixFrom(to, bits)
	i, _ := slices.BinarySearchFunc(addresses, to, netip.Addr.Compare)
	return i < len(addresses) && prefix.Contains(addresses[i])
}

// isTunnel says whether data begins with the index of the tunnel device.
func (r *Reconciler) isTunnel(data []byte) bool {
	return int64(binary.NativeEndian.Uint32(data)) == r.tunnelIndex.Load()
}

// isUplink says whether data begins with the index of an uplink.
func (r *Reconciler) isUplink(data []byte) bool {
	uplinks := r.uplinks.Load()
	return uplinks != nil && slices.Contains(*uplinks, int(binary.NativeEndian.Uint32(data)))
}

// attribute is the value of a message's attribute, which come after a header of so many bytes, or nil.
func attribute(m syscall.NetlinkMessage, header int, kind uint16) []byte {
	if len(m.Data) < header {
		return nil
	}
	attrs, err := nl.ParseRouteAttr(m.Data[header:])
	if err != nil {
		return nil
	}
	for _, a := range attrs {
		if a.Attr.Type == kind {
			return a.Value
		}
	}
	return nil
}
