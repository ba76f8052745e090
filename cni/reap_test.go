package cni

import (
	"net/netip"
	"path/filepath"
	"testing"
)

// TestReapGonePods: a pod that went without a DEL is noticed, at the second look.
func TestReapGonePods(t *testing.T) {
	t.Parallel()
	for name, isHidden := range map[string]bool{"namespace in sight": false, "namespace out of sight": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			gone, lives := n.newPod("c1", "pod-a"), n.newPod("c2", "pod-b")
			forget := gone.named()
			if isHidden {
				gone.args.Netns = nsPath(gone.netns)
			}
			serve(t, lives.netns)
			gone.mustAdd()
			lives.mustAdd()
			if isHidden { // as for an agent in a container that doesn't get the host's mounts
				hide(n, "c1")
				hide(n, "c2")
			}
			n.server.reap(t.Context())
			gone.loseLink()
			forget()
			n.server.reap(t.Context())
			n.server.reap(t.Context())
			n.expect("c1/eth0", "c2/eth0") // its ADD could still be under way
			n.clock.advance(addGrace + 1)
			n.server.reap(t.Context())
			n.expect("c1/eth0", "c2/eth0")
			n.server.reap(t.Context())
			n.expect("c2/eth0")
			if err := connect(n.netns, netip.AddrPortFrom(lives.addrs[0], testPort)); err != nil {
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
	for name, harm := range map[string]func(n *testNode, p *testPod){
		"nothing happened":      func(*testNode, *testPod) {},
		"the link was deleted":  func(_ *testNode, p *testPod) { p.loseLink() },
		"the link was set down": func(n *testNode, _ *testPod) { lines(t, n.netns, "ip link set slupbcb64b37750 down") },
		"the path went, the link is there": func(n *testNode, _ *testPod) {
			hide(n, "c1")
		},
		"the agent restarted, and can't see namespaces": func(n *testNode, _ *testPod) {
			n.stop()
			n.start()
			hide(n, "c1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			p := n.newPod("c1", "pod-a")
			p.named()
			p.mustAdd()
			harm(n, p)
			for range 4 {
				n.clock.advance(addGrace + 1)
				n.server.reap(t.Context())
			}
			n.expect("c1/eth0")
		})
	}
}

// TestReapModePolicy: without a link of ours, only a namespace that we saw can be seen to be gone.
func TestReapModePolicy(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(o *ServerOptions) { o.PolicyOnly = true })
	seen := n.newPolicyPod("c1", "1.1.0", `,"prevResult":`+prevResult("1.1.0", "10.1.0.5/24"))
	hidden := n.newPolicyPod("c2", "1.1.0", `,"prevResult":`+prevResult("1.1.0", "10.1.0.6/24"))
	forget := seen.named()
	seen.mustAdd()
	hidden.mustAdd()
	hide(n, "c2")
	for range 3 {
		n.clock.advance(addGrace + 1)
		n.server.reap(t.Context())
	}
	n.expect("c1/eth0", "c2/eth0")
	forget()
	n.server.reap(t.Context())
	n.expect("c1/eth0", "c2/eth0")
	n.server.reap(t.Context())
	n.expect("c2/eth0")
}

// TestReapLeftOverLinks: an agent that is killed after it has answered a DEL leaves a link that is down. Nobody's link that is up isn't
// ours to judge.
func TestReapLeftOverLinks(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p, other := n.newPod("c1", "pod-a"), n.newPod("c2", "pod-b")
	p.mustAdd()
	other.mustAdd()
	lines(t, n.netns, "ip link set slupbcb64b37750 down; ip link add slup0123456789a type veth peer name peer; ip link set slup0123456789a up")
	n.stop()
	if err := n.server.records.remove("c1", "eth0"); err != nil {
		t.Fatal(err)
	}
	n.enforcer.forget()
	n.start()
	n.mustAdd(requestFor("c2", "pod-b")) // the enforcement takes it over
	n.server.reap(t.Context())
	if got := len(n.hostLinks()); got != 4 {
		t.Errorf("%d links after the first look, want 4: %v", got, n.hostLinks())
	}
	n.server.reap(t.Context())
	if got := len(n.hostLinks()); got != 3 {
		t.Errorf("%d links after the second look, want 3: %v", got, n.hostLinks())
	}
	n.expect("c2/eth0")
}

func TestNamespaceInode(t *testing.T) {
	t.Parallel()
	netns := newNetNS(t)
	want, err := inode(netns)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint64{
		"":                                    0,
		nsPath(netns):                         want,
		emptyFile(t):                          0,
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
