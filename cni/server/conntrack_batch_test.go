package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/test/cnitest"
)

// Those who come during a walk share the next one, whose error is theirs; nobody gets an answer
// from a walk that began before.
func TestForgettersShareAWalk(t *testing.T) {
	t.Parallel()
	type call struct {
		addrs  []netip.Addr
		answer chan error
	}
	calls := make(chan call)
	f := connectionForgetter{walk: func(addrs []netip.Addr) error {
		c := call{addrs, make(chan error)}
		calls <- c
		return <-c.answer
	}}
	const late = 20
	results := make(chan error, late+1)
	forget := func(i byte) {
		results <- f.forget([]netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, i})})
	}
	go forget(0)
	first := <-calls
	for i := range late {
		go forget(byte(i + 1))
	}
	cnitest.Eventually(t, "all wait for the next walk", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.next != nil && len(f.next.addrs) == late
	})
	first.answer <- nil
	if err := <-results; err != nil || len(first.addrs) != 1 {
		t.Errorf("the first walk was for %v: %v", first.addrs, err)
	}
	second := <-calls
	if len(second.addrs) != late || slices.Contains(second.addrs, first.addrs[0]) {
		t.Errorf("the second walk was for %v", second.addrs)
	}
	broken := errors.New("broken")
	second.answer <- broken
	for range late {
		if err := <-results; !errors.Is(err, broken) {
			t.Errorf("got %v, want the walk's error", err)
		}
	}
}

// Many at once in the kernel: everybody's connections are gone when they are told so, and nobody
// else's.
func TestForgettersInTheKernel(t *testing.T) {
	t.Parallel()
	netns := cnitest.NewNetNS(t)
	var f connectionForgetter
	const pods = 40
	var flows []flow
	for i := range pods + 1 {
		flows = append(flows, plain(udp, fmt.Sprintf("10.1.0.%d:1000", i+1), "192.0.2.1:53"),
			plain(tcp, "[2001:db8::1]:80", fmt.Sprintf("[fd00:1::%x]:80", i+1)))
	}
	in(t, netns, func() error { return track(flows...) })
	var wg sync.WaitGroup
	for i := range pods {
		wg.Go(func() {
			err := netns.Do(func(ns.NetNS) error {
				if err := f.forget(cnitest.Addrs(fmt.Sprintf("10.1.0.%d", i+1),
					fmt.Sprintf("fd00:1::%x", i+1))); err != nil {
					return err
				}
				left, err := tracked()
				for _, mine := range flowTexts(flows[2*i : 2*i+2]) {
					if slices.Contains(left, mine) {
						return fmt.Errorf("%s is left", mine)
					}
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	in(t, netns, func() error {
		left, err := tracked()
		if want := flowTexts(flows[2*pods:]); !slices.Equal(left, want) {
			t.Errorf("left are %v, want %v", left, want)
		}
		return err
	})
}
