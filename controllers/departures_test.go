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

	"github.com/sluice-net/sluice/policy"
)

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
			c.SetNode(policy.Node{Name: "elsewhere", PodCIDRs: []netip.Prefix{netip.PrefixFrom(addr, 24).Masked()}})
			a := &Agent{Node: "node", Departures: NewDepartures(nil, 0)}
			a.setPod(c, test.before)
			if left := a.Departures.take(); len(left) != 0 {
				t.Errorf("a new pod leaves %v", left)
			}
			a.setPod(c, test.now)
			if left := a.Departures.take(); !slices.Equal(left, test.want) {
				t.Errorf("%v are left, want %v", left, test.want)
			}
		})
	}
}

// What can't be forgotten is tried again.
func TestDeparturesAreForgottenAgain(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	addrs := []netip.Addr{netip.MustParseAddr("10.1.0.1")}
	tried := make(chan []netip.Addr)
	result := errors.New("not now")
	d := NewDepartures(func(addrs []netip.Addr) error {
		tried <- addrs
		err := result
		result = nil
		return err
	}, 0)
	var running sync.WaitGroup
	running.Go(func() { d.run(ctx, &Enforcer{log: logr.Discard(), committed: make(chan struct{})}) })
	d.leave(addrs)
	for range 2 {
		if got := <-tried; !slices.Equal(got, addrs) {
			t.Errorf("%v are forgotten, want %v", got, addrs)
		}
	}
	cancel()
	running.Wait()
}
