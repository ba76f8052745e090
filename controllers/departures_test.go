package controllers

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
)

// Addresses of pods on other nodes are left when no pod has them any more, or another pod.
func TestPodsElsewhereLeave(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr("10.1.0.1")
	pod := func(name string, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: name, UID: types.UID(name)},
			Spec:       corev1.PodSpec{NodeName: "elsewhere"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning,
				PodIPs: []corev1.PodIP{{IP: addr.String()}}},
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
		{"a label changes", pod("web", same),
			pod("web", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }), nil},
		{"it is ending", pod("web", same),
			pod("web", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }), nil},
		{"it has ended", pod("web", same),
			pod("web", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
			[]netip.Addr{addr}},
		{"it has no address any more", pod("web", same),
			pod("web", func(p *corev1.Pod) { p.Status.PodIPs = nil }), []netip.Addr{addr}},
		{"it is its node", pod("web", func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
			pod("web", func(p *corev1.Pod) { p.Status.PodIPs = nil }), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := enforcer.NewModel(cluster.Options{Node: "node"}, ruleset.Config{})
			m.SetNode(policy.Node{Name: "elsewhere",
				PodCIDRs: []netip.Prefix{netip.PrefixFrom(addr, 24).Masked()}})
			var left []netip.Addr
			a := &Agent{Node: "node", Left: func(addrs []netip.Addr) {
				left = append(left, addrs...)
			}}
			setPod(a, m, test.before)
			if len(left) != 0 {
				t.Errorf("a new pod leaves %v", left)
			}
			setPod(a, m, test.now)
			if !slices.Equal(left, test.want) {
				t.Errorf("%v are left, want %v", left, test.want)
			}
		})
	}
}

func setPod(a *Agent, m *enforcer.Model, pod *corev1.Pod) {
	p := policy.PodFrom(pod)
	a.setPod(m, &p)
}
