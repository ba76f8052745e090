package controllers

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/cni/server"
	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/cnitest"
	"github.com/sluice-net/sluice/test/testnet"
)

// TestPodCIDRsAreUnreachable: what a Node says its podCIDRs are is unreachable on the node but for
// its pods, also while the network isn't ready: here the node hasn't the address that its Node has.
func TestPodCIDRsAreUnreachable(t *testing.T) {
	t.Parallel()
	s := testnet.NewSpace(t)
	dir := t.TempDir()
	e := enforcer.New(nil, enforcer.NewModel(cluster.Options{Node: "n1"}, ruleset.Config{}),
		enforcer.Options{})
	cniServer, err := server.New(server.Options{Socket: filepath.Join(dir, "socket"), StateDir: dir,
		Enforcer: &cnitest.Enforcer{}, NetNS: s.NetNS, Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	d := &Datapath{Enforcer: e, Server: cniServer, Forwarding: &ForwardingCheck{}}
	file := filepath.Join(dir, "net-conf.json")
	cnitest.WriteFile(`{"Network": "10.244.0.0/16", "IPv6Network": "fd00:10::/32", `+
		`"EnableIPv6": true}`)(t, file)
	n := NewPodNetwork(NetworkOptions{
		Node: "n1", ConfigFile: file, SavedFile: filepath.Join(dir, "saved.json"),
		Overlay: overlay.Options{NetNS: s.NetNS}, Log: logr.Discard(),
		Events:  notify.NodeEvents{Node: "n1", Recorder: events.NewFakeRecorder(100)},
		OnRules: func(ruleset.Network) {}, OnState: d.SetState,
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	ended := make(chan error, 2)
	go func() { ended <- n.Run(ctx) }()
	go func() { ended <- cniServer.KeepHostEnds(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range cap(ended) {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		n.conf.saved.settle(t)
	})
	n.Listed()
	for _, podCIDRs := range [][]string{{"10.244.1.0/24", "fd00:10:1::/64"}, {"10.244.2.0/24"}} {
		n.SetNode(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "n1"},
			Spec:       corev1.NodeSpec{PodCIDRs: podCIDRs},
			Status: corev1.NodeStatus{
				Addresses: []corev1.NodeAddress{
					{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}},
		})
		var routes string
		cnitest.Eventually(t, "routes of these podCIDRs alone", func() bool {
			routes = s.Run("ip route show type unreachable") +
				s.Run("ip -6 route show type unreachable")
			for _, p := range podCIDRs {
				if !strings.Contains(routes, "unreachable "+p+" ") {
					return false
				}
			}
			return strings.Count(routes, "unreachable") == len(podCIDRs)
		})
		if n.Ready() == nil {
			t.Error("the network is ready: this shows nothing of one that isn't")
		}
	}
}
