package server

import (
	"net/netip"
	"sync"
)

// connectionForgetter is forgetConnections for many callers at once, all in one network namespace:
// as most of the time goes into walking through the table, whoever comes while a walk is under way
// shares the next one. The zero value is ready.
type connectionForgetter struct {
	walk func([]netip.Addr) error // forgetConnections if nil

	walking sync.Mutex // held during a walk
	mu      sync.Mutex // of next
	next    *forgetBatch
}

// forgetBatch is those that share a walk which hasn't begun.
type forgetBatch struct {
	addrs []netip.Addr
	done  chan struct{} // closed after the walk
	err   error         // of the walk
}

// forget returns after a walk for these addresses that began after the call.
func (f *connectionForgetter) forget(addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	f.mu.Lock()
	batch := f.next
	isFirst := batch == nil
	if isFirst {
		batch = &forgetBatch{done: make(chan struct{})}
		f.next = batch
	}
	batch.addrs = append(batch.addrs, addrs...)
	f.mu.Unlock()
	if isFirst {
		f.run(batch)
	}
	<-batch.done
	return batch.err
}

func (f *connectionForgetter) run(batch *forgetBatch) {
	defer close(batch.done)
	f.walking.Lock()
	defer f.walking.Unlock()
	f.mu.Lock()
	f.next = nil // who comes from now on is too late for this walk
	f.mu.Unlock()
	walk := f.walk
	if walk == nil {
		walk = forgetConnections
	}
	batch.err = walk(batch.addrs)
}
