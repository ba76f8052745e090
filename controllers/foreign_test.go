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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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

// Addresses of pods on other nodes are left when nobody has them any more, or
// somebody else.
func TestPodsElsewhereLeave(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr("10.1.0.1")
	pod := func(name string, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: name, UID: types.UID(name)},
			Spec:       corev1.PodSpec{NodeName: "elsewhere"},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: addr.String()}}},
		}
		change(p)
		return p
	}
	same := func(*corev1.Pod) {}
	for _, test := range []struct {
		name   string
		before *corev1.Pod
		now    *corev1.Pod
		want   []netip.Addr
	}{
		{"nothing changes", pod("web", same), pod("web", same), nil},
		{"a label changes", pod("web", same), pod("web", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }), nil},
		{"it is ending", pod("web", same), pod("web", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }), nil},
		{"it has ended", pod("web", same), pod("web", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), []netip.Addr{addr}},
		{"it has no address any more", pod("web", same), pod("web", func(p *corev1.Pod) { p.Status.PodIPs = nil }), []netip.Addr{addr}},
		{"it is its node", pod("web", func(p *corev1.Pod) { p.Spec.HostNetwork = true }), pod("web", func(p *corev1.Pod) { p.Status.PodIPs = nil }), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := policy.NewCluster(policy.Options{Node: "node"})
			a := &Agent{Node: "node", Foreign: ForeignPods{Forget: func([]netip.Addr) error { return nil }}}
			a.setPod(c, test.before)
			if left := a.Foreign.take(); len(left) != 0 {
				t.Errorf("a new pod leaves %v", left)
			}
			a.setPod(c, test.now)
			if left := a.Foreign.take(); !slices.Equal(left, test.want) {
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
