package controllers

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// What connection tracking remembers of an address is to be forgotten when
// its pod has left it, and not before.
func TestForeignPodsLeave(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")
	pod := func(uid string, addrs ...netip.Addr) *policy.Pod {
		return &policy.Pod{ID: selector.Pod{Namespace: "dev", Name: "web", UID: uid}, Addresses: addrs}
	}
	finished := pod("1", a, b)
	finished.Finished = true
	for _, test := range []struct {
		name string
		now  *policy.Pod // nil: the object is gone
		want []netip.Addr
	}{
		{"nothing changes", pod("1", a, b), nil},
		{"an address goes", pod("1", b), []netip.Addr{a}},
		{"an address comes", pod("1", a, b, b.Next()), nil},
		{"all addresses go", pod("1"), []netip.Addr{a, b}},
		{"it ends", finished, []netip.Addr{a, b}},
		{"another pod of the name", pod("2", a, b), []netip.Addr{a, b}},
		{"it is gone", nil, []netip.Addr{a, b}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := policy.NewCluster(policy.Options{Node: "node"})
			f := &ForeignPods{Enabled: true, Forget: func([]netip.Addr) error { return nil }}
			f.set(c, pod("1", a, b))
			if left := f.take(); len(left) != 0 {
				t.Errorf("a new pod leaves %v", left)
			}
			if test.now != nil {
				f.set(c, test.now)
			} else {
				f.forget(c, client.ObjectKey{Namespace: "dev", Name: "web"})
			}
			if left := f.take(); !slices.Equal(left, test.want) {
				t.Errorf("%v are left, want %v", left, test.want)
			}
		})
	}
}

// What can't be forgotten is tried again.
func TestForeignPodsForgetAgain(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	addrs := []netip.Addr{netip.MustParseAddr("10.1.0.1")}
	tried := make(chan []netip.Addr)
	result := errors.New("not now")
	f := &ForeignPods{Enabled: true, Forget: func(addrs []netip.Addr) error {
		tried <- addrs
		err := result
		result = nil
		return err
	}}
	var running sync.WaitGroup
	running.Go(func() { f.run(ctx, &Enforcer{log: logr.Discard(), committed: make(chan struct{})}) })
	f.leave(addrs)
	for range 2 {
		if got := <-tried; !slices.Equal(got, addrs) {
			t.Errorf("%v are forgotten, want %v", got, addrs)
		}
	}
	cancel()
	running.Wait()
}
