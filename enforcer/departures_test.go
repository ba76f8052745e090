package enforcer

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// What can't be forgotten is tried again.
func TestDeparturesAreForgottenAgain(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	addrs := []netip.Addr{netip.MustParseAddr("10.1.0.1")}
	tried := make(chan []netip.Addr)
	result := errors.New("not now")
	d := NewDepartures(&Enforcer{committed: make(chan struct{})}, func(addrs []netip.Addr) error {
		tried <- addrs
		err := result
		result = nil
		return err
	}, 0)
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	d.Leave(addrs)
	for range 2 {
		if got := <-tried; !slices.Equal(got, addrs) {
			t.Errorf("%v are forgotten, want %v", got, addrs)
		}
	}
	cancel()
	running.Wait()
}
