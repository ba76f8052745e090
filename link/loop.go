package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Loop repeats a pass over a network namespace whenever something may differ. All fields but the
// optional ones are set before Run.
type Loop struct {
	NetNS     ns.NetNS // nil: that of the process. The caller keeps it open while Run runs
	SysctlDir string   // where ProcSys is writable; empty: there
	Tick      time.Duration
	Log       logr.Logger

	// Concerns says whether a change in the kernel calls for a pass. It is called by a goroutine of
	// its own, beside passes. What the kernel doesn't announce, such as most sysctls, waits for the
	// tick.
	Concerns func(Notice) bool
	// Pass compares and applies, on a thread in the namespace. It is false to be called again soon.
	Pass func(*Kernel) bool

	wake chan struct{} // holds at most one: something may differ
}

// NewLoop makes a Loop that does nothing yet. A zero tick stands for the default. Concerns and Pass
// are still to be set.
func NewLoop(netns ns.NetNS, sysctlDir string, tick, defaultTick time.Duration,
	log logr.Logger) *Loop {
	if sysctlDir == "" {
		sysctlDir = ProcSys
	}
	if tick == 0 {
		tick = defaultTick
	}
	if log.GetSink() == nil {
		log = logr.Discard()
	}
	return &Loop{NetNS: netns, SysctlDir: sysctlDir, Tick: tick, Log: log,
		wake: make(chan struct{}, 1)}
}

// Wake asks for a pass. Asking again before it starts changes nothing.
func (l *Loop) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Open opens the loop's network namespace.
func (l *Loop) Open() (k *Kernel, err error) {
	err = In(l.NetNS, func() error { k, err = Open(l.SysctlDir); return err })
	return k, err
}

// Run calls Pass until the context ends, and then leaves everything as it is. Its error is about
// not being able to start.
func (l *Loop) Run(ctx context.Context) error {
	k, err := l.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	stop, err := l.watch()
	if err != nil {
		return err
	}
	defer stop()

	const (
		gap        = 50 * time.Millisecond // between passes, however much is going on
		firstRetry = 200 * time.Millisecond
	)
	tick := time.NewTicker(l.Tick)
	defer tick.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	wait := firstRetry
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-tick.C:
		case <-retry.C:
		}
		if l.pass(k) {
			retry.Stop()
			wait = firstRetry
		} else {
			retry.Reset(wait)
			wait = min(2*wait, l.Tick)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(gap):
		}
	}
}

// pass is false if it can't enter the namespace either.
func (l *Loop) pass(k *Kernel) (done bool) {
	if err := In(l.NetNS, func() error { done = l.Pass(k); return nil }); err != nil {
		l.Log.Error(err, "Entering the node's network namespace")
		return false
	}
	return done
}

// watch asks for a pass at each change that concerns the owner, until stop is called.
func (l *Loop) watch() (stop func(), err error) {
	var socket *nl.NetlinkSocket
	err = In(l.NetNS, func() error {
		socket, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
			unix.RTNLGRP_TC,
			unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
			unix.RTNLGRP_IPV6_ROUTE,
			unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF)
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
		l.receive(socket)
	}()
	return func() {
		socket.Close()
		<-done
	}, nil
}

func (l *Loop) receive(socket *nl.NetlinkSocket) {
	for {
		messages, from, err := socket.Receive()
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, unix.EAGAIN): // closed while it waited: the next call says so
			continue
		case errors.Is(err, unix.ENOBUFS):
			l.Wake()
			continue
		case err != nil:
			l.Log.Error(err, "Receiving netlink notifications: from now on only the tick heals")
			return
		case from.Pid != nl.PidKernel:
			continue
		}
		for _, m := range messages {
			if n, ok := parseNotice(m); ok && l.Concerns(n) {
				l.Wake()
				break
			}
		}
	}
}

// Converge calls round until it is settled, as one change can take others along: a link that was
// down has lost its routes. A round is settled if nothing differed, or another one can't help.
func Converge(round func() (settled bool, err error)) error {
	const rounds = 5
	var err error
	for range rounds {
		var settled bool
		if settled, err = round(); settled {
			return err
		}
	}
	if err == nil {
		err = errors.New("it doesn't stay as set: somebody else changes it")
	}
	return err
}
