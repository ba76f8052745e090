package podlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
)

// watch asks for a pass whenever the kernel tells of a change that may concern pods' links, until
// stop is called. What it doesn't tell of (most sysctls) waits for the tick.
func (h *Keeper) watch() (stop func(), err error) {
	var socket *nl.NetlinkSocket
	err = h.do(func() (err error) {
		socket, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
			unix.RTNLGRP_TC,
			unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
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
		h.receive(socket)
	}()
	return func() {
		socket.Close()
		<-done
	}, nil
}

func (h *Keeper) receive(socket *nl.NetlinkSocket) {
	for {
		messages, from, err := socket.Receive()
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, unix.EAGAIN): // closed while it waited: the next call says so
			continue
		case errors.Is(err, unix.ENOBUFS):
			h.poke()
			continue
		case err != nil:
			h.options.Log.Error(err, "Receiving netlink notifications: from now on only the tick heals pods' links")
			return
		case from.Pid != nl.PidKernel:
			continue
		}
		if slices.ContainsFunc(messages, h.concerns) {
			h.poke()
		}
	}
}

// concerns says whether a change may matter.
func (h *Keeper) concerns(m syscall.NetlinkMessage) bool {
	const indexAt = 4 // in struct ndmsg, ifaddrmsg and tcmsg
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		_, ok := parsePodLink(m.Data)
		return ok
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		// An address of the node can be what routes to pods have as their source.
		const scopeAt = 3
		return len(m.Data) >= unix.SizeofIfAddrmsg &&
			(m.Data[scopeAt] != unix.RT_SCOPE_LINK || h.isWatched(m.Data[indexAt:]))
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH, unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER:
		return len(m.Data) >= unix.SizeofNdMsg && h.isWatched(m.Data[indexAt:])
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return h.routeConcerns(m.Data)
	default:
		return false
	}
}

// routeConcerns is true for our routes, and for those that may have taken the place of one.
func (h *Keeper) routeConcerns(data []byte) bool {
	const lengthAt, tableAt, protocolAt = 1, 4, 5 // in struct rtmsg
	if len(data) < unix.SizeofRtMsg || data[tableAt] != unix.RT_TABLE_MAIN {
		return false
	}
	if data[protocolAt] == byte(RouteProtocol) {
		return true
	}
	for kind, value := range attribute.All(data[unix.SizeofRtMsg:]) {
		if kind == unix.RTA_DST && int(data[lengthAt]) == addrOf(value).BitLen() {
			return true // a single address, as a pod's
		}
	}
	return false
}

// isWatched says whether data begins with the index of a pod's link or shaping device.
func (h *Keeper) isWatched(data []byte) bool {
	index := int(binary.NativeEndian.Uint32(data))
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.watched[index]
}
