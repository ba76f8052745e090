package enforcer

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sluice-net/sluice/internal/pause"
)

// Departures forgets the connections of addresses that pods have left, on this node or another:
// established connections pass, so the next pod with such an address would take over those of the
// last one. It forgets them once the ruleset no longer has the addresses as those pods', and while
// the addresses rest.
type Departures struct {
	enforcer *Enforcer
	forget   func(addrs []netip.Addr) error
	interval time.Duration

	mu   sync.Mutex
	left map[netip.Addr]struct{} // to be forgotten
	wake chan struct{}           // holds a token while there may be some
}

// NewDepartures returns Departures. The Enforcer reports to it the addresses that pods lost when
// their node lost them; all others come by Leave. It must be called before the Enforcer runs.
// Forget deletes the entries of addresses from connection tracking. It is called at most once in an
// interval, since a walk through a large table takes 0.1 s and finds a thousand addresses as fast
// as one. The interval should be much shorter than the time for which an address rests.
func NewDepartures(e *Enforcer, forget func(addrs []netip.Addr) error,
	interval time.Duration) *Departures {
	d := &Departures{enforcer: e, forget: forget, interval: interval,
		left: map[netip.Addr]struct{}{}, wake: make(chan struct{}, 1)}
	e.departures = d
	return d
}

// Leave hands addresses to Run. It does nothing without Departures.
func (d *Departures) Leave(addrs []netip.Addr) {
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

// Run forgets until ctx ends. It must be called once.
func (d *Departures) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		}
		addrs := d.take()
		if err := d.enforcer.await(ctx, func() error { return nil }); err != nil {
			return nil //nolint:nilerr // the agent ends
		}
		if err := d.forgetPods(addrs); err != nil {
			d.enforcer.opts.Log.Error(err,
				"The next pods with these addresses may inherit connections; trying again",
				"addresses", addrs)
			d.Leave(addrs)
			pause.For(ctx, firstRetry)
		}
		pause.For(ctx, d.interval)
	}
}

// forgetPods forgets addresses except those of the node: no pod ever had these, even if its status
// says so, and the node's connections go on.
func (d *Departures) forgetPods(addrs []netip.Addr) error {
	own, err := OwnAddresses()
	if err != nil {
		return err
	}
	pods := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		return slices.Contains(own, a)
	})
	if len(pods) == 0 {
		return nil
	}
	return d.forget(pods)
}
