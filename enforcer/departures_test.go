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

// TestNodesConnectionsArentForgotten: when a pod goes whose status said an address of the node.
func TestNodesConnectionsArentForgotten(t *testing.T) {
	t.Parallel()
	own, err := OwnAddresses()
	if err != nil || len(own) == 0 {
		t.Fatalf("this machine has the addresses %v, error %v", own, err)
	}
	var forgotten []netip.Addr
	d := NewDepartures(&Enforcer{committed: make(chan struct{})}, func(addrs []netip.Addr) error {
		forgotten = append(forgotten, addrs...)
		return nil
	}, 0)
	pods := []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")}
	for _, addrs := range [][]netip.Addr{append(own, pods...), own} {
		if err := d.forgetPods(addrs); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(forgotten, pods) {
		t.Errorf("%v are forgotten, want %v", forgotten, pods)
	}
}
