package table

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/nftsocket"
	"github.com/sluice-net/sluice/nft/wire"
)

// watchBuffer holds what others write at once (kube-proxy's rules for some ten thousand endpoints);
// beyond that the kernel says that something was lost.
const watchBuffer = 8 << 20

// Watch calls changed, from this goroutine, whenever somebody else has changed the table or may
// have done so, until ctx ends. It is called once for many changes that arrive together, and should
// return soon.
//
// It listens on a socket of its own to the kernel's notifications (group NFNLGRP_NFTABLES). Their
// header carries the netlink port of the socket that made the change, and ours aren't even
// delivered. The process number in NEWGEN would be no help: it is the root PID namespace's. An
// error ends the watch; the caller should begin another, and look at the table meanwhile. A Table
// has one watch at a time.
func (t *Table) Watch(ctx context.Context, changed func()) error {
	raw, err := t.dial(t.opts.NetNS)
	if err != nil {
		return fmt.Errorf("watching: %w", err)
	}
	defer raw.Close()
	if err := t.startWatch(raw); err != nil {
		return err
	}
	defer t.endWatch()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetReadDeadline(time.Unix(0, 1)) })
	defer stop()
	changed() // what happened before the watch began
	for {
		messages, err := raw.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // something was lost
			changed()
			continue
		case errors.Is(err, os.ErrDeadlineExceeded), err == nil && !t.foreign(messages):
			continue
		case err != nil:
			return fmt.Errorf("listening to nftables' notifications: %w", err)
		}
		changed()
	}
}

func (t *Table) startWatch(raw nftsocket.Socket) error {
	for size := watchBuffer; raw.SetReadBuffer(size) != nil && size > 1<<16; size /= 2 {
		continue
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watch = raw
	if err := t.muteOwn(); err != nil {
		return err
	}
	if err := raw.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("joining the group of nftables' notifications: %w", err)
	}
	return nil
}

func (t *Table) endWatch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watch = nil
}

// muteOwn keeps from the watch what our connection does: one large transaction would overflow it.
// It is called, with the lock held, before a connection's first transaction. The messages of one
// datagram are all of one transaction.
func (t *Table) muteOwn() error {
	if t.conn == nil {
		return nil
	}
	port := t.conn.Port()
	t.port.Store(port)
	if t.watch == nil {
		return nil
	}
	const portOffset, everything = 12, 1 << 18
	// as BPF loads it
	bigEndian := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, port))
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: portOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: bigEndian, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: everything},
	}
	err := attachFilter(t.watch, program)
	if err != nil {
		return fmt.Errorf("filtering nftables' notifications: %w", err)
	}
	return nil
}

func attachFilter(raw nftsocket.Socket, program []unix.SockFilter) error {
	socket, err := raw.SyscallConn()
	if err != nil {
		return err
	}
	var attachErr error
	err = socket.Control(func(fd uintptr) {
		attachErr = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	return errors.Join(err, attachErr)
}

// foreign reports whether one of the messages says that another socket than ours changed our table.
func (t *Table) foreign(messages []netlink.Message) bool {
	for _, m := range messages {
		if m.Header.Type>>8 == unix.NFNL_SUBSYS_NFTABLES && m.Header.PID != t.port.Load() &&
			wire.AboutOurTable(m) {
			return true
		}
	}
	return false
}
