package server

import (
	"net/netip"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni/plugin"
	"github.com/sluice-net/sluice/test/cnitest"
)

// TestReapGonePods: a pod that went without a DEL is noticed, at the second look.
func TestReapGonePods(t *testing.T) {
	t.Parallel()
	for name, isHidden := range map[string]bool{"namespace in sight": false,
		"namespace out of sight": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			gone, lives := n.newPod("c1", "pod-a"), n.newPod("c2", "pod-b")
			forget := gone.Named()
			if isHidden {
				gone.Args.Netns = cnitest.NSPath(gone.NetNS)
			}
			cnitest.Serve(t, lives.NetNS)
			gone.MustAdd()
			lives.MustAdd()
			if isHidden { // as for an agent in a container that doesn't get the host's mounts
				hide(n, "c1")
				hide(n, "c2")
			}
			n.server.Reap(t.Context())
			gone.LoseLink()
			forget()
			n.server.Reap(t.Context())
			n.server.Reap(t.Context())
			n.Expect("c1/eth0", "c2/eth0") // its ADD could still be under way
			n.Clock.Advance(addGrace + 1)
			n.server.Reap(t.Context())
			n.Expect("c1/eth0", "c2/eth0")
			n.server.Reap(t.Context())
			n.Expect("c2/eth0")
			err := cnitest.Connect(n.NetNS, netip.AddrPortFrom(lives.Addrs[0], cnitest.Port))
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// hide makes an attachment's namespace one that the agent can't see, although it is there.
func hide(n *testNode, container string) {
	s := n.server
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attachments[container+"/eth0"]
	a.Netns = "/run/netns/nowhere"
	s.attachments[a.ID()] = a
	delete(s.seen, a.ID())
}

// TestReapLeavesLivePods: as long as there is a doubt.
func TestReapLeavesLivePods(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(n *testNode, p *cnitest.Pod){
		"nothing happened":     func(*testNode, *cnitest.Pod) {},
		"the link was deleted": func(_ *testNode, p *cnitest.Pod) { p.LoseLink() },
		"the link was set down": func(n *testNode, _ *cnitest.Pod) {
			cnitest.Lines(t, n.NetNS, "ip link set slupbcb64b37750 down")
		},
		"the path went, the link is there": func(n *testNode, _ *cnitest.Pod) {
			hide(n, "c1")
		},
		"the agent restarted, and can't see namespaces": func(n *testNode, _ *cnitest.Pod) {
			n.Stop()
			n.Start()
			hide(n, "c1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			p := n.newPod("c1", "pod-a")
			p.Named()
			p.MustAdd()
			harm(n, p)
			for range 4 {
				n.Clock.Advance(addGrace + 1)
				n.server.Reap(t.Context())
			}
			n.Expect("c1/eth0")
		})
	}
}

// TestReapModePolicy: without a link of ours, only a namespace that we saw can be seen to be gone.
func TestReapModePolicy(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(o *Options) { o.PolicyOnly = true })
	seen := n.NewPolicyPod(plugin.New(), "c1", n.Config("1.1.0"),
		`,"prevResult":`+cnitest.PrevResult("1.1.0", "10.1.0.5/24"))
	hidden := n.NewPolicyPod(plugin.New(), "c2", n.Config("1.1.0"),
		`,"prevResult":`+cnitest.PrevResult("1.1.0", "10.1.0.6/24"))
	forget := seen.Named()
	seen.MustAdd()
	hidden.MustAdd()
	hide(n, "c2")
	for range 3 {
		n.Clock.Advance(addGrace + 1)
		n.server.Reap(t.Context())
	}
	n.Expect("c1/eth0", "c2/eth0")
	forget()
	n.server.Reap(t.Context())
	n.Expect("c1/eth0", "c2/eth0")
	n.server.Reap(t.Context())
	n.Expect("c2/eth0")
}

// TestReapLeftOverLinks: an agent that is killed after it has answered a DEL leaves a link that is
// down. Nobody's link that is up isn't ours to judge.
func TestReapLeftOverLinks(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p, other := n.newPod("c1", "pod-a"), n.newPod("c2", "pod-b")
	p.MustAdd()
	other.MustAdd()
	cnitest.Lines(t, n.NetNS, "ip link set slupbcb64b37750 down; ip link add slup0123456789a "+
		"type veth peer name peer; ip link set slup0123456789a up")
	n.Stop()
	if err := n.server.records.Remove("c1", "eth0"); err != nil {
		t.Fatal(err)
	}
	n.Enforcer.Forget()
	n.Start()
	n.MustAdd(cnitest.RequestFor("c2", "pod-b")) // the enforcement takes it over
	n.server.Reap(t.Context())
	if got := len(n.HostLinks()); got != 4 {
		t.Errorf("%d links after the first look, want 4: %v", got, n.HostLinks())
	}
	n.server.Reap(t.Context())
	if got := len(n.HostLinks()); got != 3 {
		t.Errorf("%d links after the second look, want 3: %v", got, n.HostLinks())
	}
	n.Expect("c2/eth0")
}

func TestNamespaceInode(t *testing.T) {
	t.Parallel()
	netns := cnitest.NewNetNS(t)
	var file unix.Stat_t
	if err := unix.Fstat(int(netns.Fd()), &file); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint64{
		"":                                    0,
		cnitest.NSPath(netns):                 file.Ino,
		cnitest.EmptyFile(t):                  0,
		filepath.Join(t.TempDir(), "nowhere"): 0,
	} {
		if got, err := namespaceInode(path); err != nil || got != want {
			t.Errorf("%q: got %d and %v, want %d", path, got, err, want)
		}
	}
	if _, err := namespaceInode("/proc/self/environ/x"); err == nil {
		t.Error("what can't be known is no sign that a pod is gone")
	}
}
