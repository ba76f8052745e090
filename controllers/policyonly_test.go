package controllers

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

// What connection tracking remembers of an address is to be forgotten when its pod has left it, and
// not before.
func TestPolicyOnlyPodsLeave(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")
	pod := func(uid string, addrs ...netip.Addr) *policy.Pod {
		return &policy.Pod{ID: selector.Pod{Namespace: "dev", Name: "web", UID: uid},
			Addresses: addrs}
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
			c := cluster.New(cluster.Options{Node: "node"})
			var left []netip.Addr
			f := &PolicyOnlyPods{Enabled: true, Left: func(addrs []netip.Addr) {
				left = append(left, addrs...)
			}}
			f.set(c, pod("1", a, b))
			if len(left) != 0 {
				t.Errorf("a new pod leaves %v", left)
			}
			if test.now != nil {
				f.set(c, test.now)
			} else {
				f.forget(c, policy.Key{Namespace: "dev", Name: "web"})
			}
			slices.SortFunc(left, netip.Addr.Compare)
			if !slices.Equal(left, test.want) {
				t.Errorf("%v are left, want %v", left, test.want)
			}
		})
	}
}
