package controllers

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/needroot"
)

// A configuration that can be read but doesn't fit the node is never reported as in force: the
// outcome of the one before says nothing about it.
func TestReadinessIsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	needroot.Skip(t)
	netns, err := ns.TempNetNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns.Close() })
	err = netns.Do(func(ns.NetNS) error {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth1"}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		address, err := netlink.ParseAddr("192.0.2.1/24")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, address)
	})
	if err != nil {
		t.Fatal(err)
	}
	dir, recorder := t.TempDir(), events.NewFakeRecorder(10)
	file := filepath.Join(dir, "net-conf.json")
	write := func(conf string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	const fits, other = `{"Network": "10.244.0.0/16"}`, `{"Network": "10.9.0.0/16"}`
	write(fits)
	states := make(chan NetworkState, 100)
	n := NewPodNetwork(NetworkOptions{
		Node: "n1", ConfigFile: file, SavedFile: filepath.Join(dir, "saved.json"),
		Overlay: overlay.Options{NetNS: netns},
		Events:  notify.NodeEvents{Node: "n1", Recorder: recorder}, Log: logr.Discard(),
		OnRules: func(ruleset.Network) {}, OnState: func(s NetworkState) { states <- s },
	})
	n.SetNode(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1"},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24"}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}},
	})
	n.Listed()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		n.conf.saved.settle(t)
	})
	awaitState := func(ready bool) {
		t.Helper()
		for {
			select {
			case s := <-states:
				if fitting := s.Config.Network.String() == "10.244.0.0/16"; s.Ready && !fitting {
					t.Errorf("ready with %s", s.Config.Network)
				}
				if s.Ready == ready {
					return
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("no state that is ready: %t", ready)
			}
		}
	}
	next := func(want string) {
		t.Helper()
		select {
		case got := <-recorder.Events:
			if !strings.HasPrefix(got, want) {
				t.Fatalf("reported %q, want %s", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing reported, want %s", want)
		}
	}
	awaitState(true)
	for range 3 {
		write(`{"Network": 5}`)
		next("Warning InvalidNetworkConfig")
		write(other)
		next("Warning NetworkNotReady pod CIDR 10.244.1.0/24 of node n1 is outside the pod " +
			"network 10.9.0.0/16")
		awaitState(false)
		write(fits)
		next("Normal NetworkReady")
		awaitState(true)
	}
	if len(recorder.Events) > 0 {
		t.Errorf("reported besides: %s", <-recorder.Events)
	}
}
