package table

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
	"github.com/sluice-net/sluice/internal/nftsocket"
)

// The sockets of this file are real ones, each with a fault.

// nth wraps the socket that is opened as the nth, and no other.
func nth(n int32, wrap func(nftsocket.Socket) nftsocket.Socket) nftsocket.Dialer {
	var opened atomic.Int32
	return func(netNS int) (nftsocket.Socket, error) {
		socket, err := nftsocket.Dial(netNS)
		if err == nil && opened.Add(1) == n {
			socket = wrap(socket)
		}
		return socket, err
	}
}

// every wraps each socket.
func every(wrap func(nftsocket.Socket) nftsocket.Socket) nftsocket.Dialer {
	return func(netNS int) (nftsocket.Socket, error) {
		socket, err := nftsocket.Dial(netNS)
		if err == nil {
			socket = wrap(socket)
		}
		return socket, err
	}
}

// tiny loses answers: there is no room for many.
func tiny(s nftsocket.Socket) nftsocket.Socket { return tinySocket{s} }

type tinySocket struct{ nftsocket.Socket }

func (s tinySocket) SetReadBuffer(int) error { return s.Socket.SetReadBuffer(1) }

// tinyWatch loses notifications.
func tinyWatch(s nftsocket.Socket) nftsocket.Socket { return tinyWatchSocket{s} }

type tinyWatchSocket struct{ nftsocket.Socket }

func (s tinyWatchSocket) JoinGroup(group uint32) error {
	if err := s.SetReadBuffer(1); err != nil {
		return err
	}
	return s.Socket.JoinGroup(group)
}

// A stuck socket's transactions wait in the kernel until they are let go.
type stuck struct {
	nftsocket.Socket
	inKernel <-chan struct{}
}

func (s stuck) SendMessages(messages []netlink.Message) ([]netlink.Message, error) {
	<-s.inKernel
	return s.Socket.SendMessages(messages)
}

// older is a socket to a kernel before 6.9, which knows no table that persists: to this one the
// flag is sent as one that it doesn't know either.
func older(s nftsocket.Socket) nftsocket.Socket { return olderSocket{s} }

type olderSocket struct{ nftsocket.Socket }

func (s olderSocket) SendMessages(messages []netlink.Message) ([]netlink.Message, error) {
	const persist, unknown = 0x4, 0x4000
	messages = slices.Clone(messages)
	for i, m := range messages {
		if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE {
			continue
		}
		data := bytes.Clone(m.Data)
		for kind, value := range attribute.All(data[nfgenHeader:]) {
			flags := binary.BigEndian.Uint32(value)
			if kind == unix.NFTA_TABLE_FLAGS && flags&persist != 0 {
				binary.BigEndian.PutUint32(value, flags&^persist|unknown)
			}
		}
		messages[i].Data = data
	}
	return s.Socket.SendMessages(messages)
}

const nfgenHeader = 4 // struct nfgenmsg

// A holder holds the socket that was opened last, as a child that is being started does (fork).
type holder struct {
	last    nftsocket.Socket
	held    uint32 // the netlink port of what it holds
	onOwner func() // called whenever the kernel has said that this port owns the table
}

func (h *holder) wrap(s nftsocket.Socket) nftsocket.Socket {
	h.last = s
	return heldSocket{s, h}
}

// hold duplicates the socket's descriptor, which is the caller's to close.
func (h *holder) hold(t *testing.T) int {
	t.Helper()
	sc, err := h.last.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var held int
	var dupErr error
	if err := sc.Control(func(fd uintptr) {
		held, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil || dupErr != nil {
		t.Fatal(err, dupErr)
	}
	h.held = h.last.PID()
	return held
}

type heldSocket struct {
	nftsocket.Socket
	*holder
}

func (s heldSocket) Execute(request netlink.Message) ([]netlink.Message, error) {
	replies, err := s.Socket.Execute(request)
	const tableOwner = 7 // NFTA_TABLE_OWNER
	if request.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE &&
		s.onOwner != nil {
		for _, m := range replies {
			for kind, value := range attribute.All(m.Data[nfgenHeader:]) {
				if kind == tableOwner && binary.BigEndian.Uint32(value) == s.held {
					s.onOwner()
				}
			}
		}
	}
	return replies, err
}
