package controllers

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Departures forgets the connections of addresses that pods have left, on
// this node or another: established connections pass, so the next pod with such
// an address would go on in those of the last one. It does so once the kernel no
// longer takes the addresses for theirs, and while they rest.
type Departures struct {
	forget   func(addrs []netip.Addr) error
	interval time.Duration

	mu   sync.Mutex
	left map[netip.Addr]struct{} // to be forgotten
	wake chan struct{}           // holds a token while there may be some
}

// NewDepartures returns Departures that an Agent runs. Forget deletes what
// connection tracking remembers of addresses. It isn't called more often than
// the interval says, since a walk through a large table takes 0.1 s and finds
// one address as fast as a thousand; that should be much shorter than the time
// for which an address rests.
func NewDepartures(forget func(addrs []netip.Addr) error, interval time.Duration) *Departures {
	return &Departures{forget: forget, interval: interval, left: map[netip.Addr]struct{}{}, wake: make(chan struct{}, 1)}
}

// moved notes the addresses that a pod had before and hasn't now.
func (d *Departures) moved(before, now []netip.Addr) {
	d.leave(slices.DeleteFunc(slices.Clone(before), func(a netip.Addr) bool { return slices.Contains(now, a) }))
}

// leave hands addresses to run.
func (d *Departures) leave(addrs []netip.Addr) {
	if d == nil || len(addrs) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range addrs {
		d.left[a] = struct{}{}
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// take returns the addresses that are to be forgotten, sorted.
func (d *Departures) take() []netip.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	addrs := slices.SortedFunc(maps.Keys(d.left), netip.Addr.Compare)
	clear(d.left)
	return addrs
}

// run forgets until ctx ends.
func (d *Departures) run(ctx context.Context, e *Enforcer) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		}
		addrs := d.take()
		if err := e.await(ctx, func() error { return nil }); err != nil {
			return // the agent ends
		}
		if err := d.forget(addrs); err != nil {
			e.log.Error(err, "The next pods with these addresses may inherit connections; trying again", "addresses", addrs)
			d.leave(addrs)
			pause(ctx, firstRetry)
		}
		pause(ctx, d.interval)
	}
}
