package plugin

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-net/sluice/test/cnitest"
)

// TestTwoInterfaces: of one container, one after the other, don't disturb each other.
func TestTwoInterfaces(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.newPod("c1", "pod-a")
	cnitest.Serve(t, a.NetNS)
	a.MustAdd()
	first := a.Addrs
	works := func() {
		t.Helper()
		for _, addr := range first {
			if err := cnitest.Connect(n.NetNS, netip.AddrPortFrom(addr, cnitest.Port)); err != nil {
				t.Errorf("%s: %v", addr, err)
			}
		}
	}
	a.Args.IfName = "net1"
	a.MustAdd()
	works()
	n.Expect("c1/eth0", "c1/net1")
	got := strings.Join(cnitest.Lines(t, a.NetNS,
		"ip route; ip -6 route show default | cut -d' ' -f1-5"), "\n")
	if strings.Count(got, "dev eth0") != 2 || strings.Count(got, "dev net1") != 2 {
		t.Errorf("the pod's routes:\n%s", got)
	}
	a.MustDel()
	works()
	n.Expect("c1/eth0")
}

// TestNewSandbox: an older sandbox of the same pod is replaced, and its late DEL does no harm.
func TestNewSandbox(t *testing.T) {
	t.Parallel()
	n := newHealingNode(t)
	older, newer := n.newPod("c1", "pod-a"), n.newPod("c2", "pod-a")
	cnitest.Serve(t, newer.NetNS)
	older.MustAdd()
	newer.MustAdd()
	if names := cnitest.LinkNames(t, older.NetNS); len(names) > 0 {
		t.Errorf("the older sandbox still has %v", names)
	}
	for range 2 {
		err := cnitest.Connect(n.NetNS, netip.AddrPortFrom(newer.Addrs[0], cnitest.Port))
		if err != nil {
			t.Error(err)
		}
		n.Expect("c2/eth0")
		older.MustDel()
	}
	newer.MustDel()
	newer.expectNothing()
}

// TestManyPodsAtOnce: each with its own addresses, each working when its ADD is done.
func TestManyPodsAtOnce(t *testing.T) {
	t.Parallel()
	n := newHealingNode(t)
	cnitest.Serve(t, n.NetNS)
	pods := make([]*testPod, 100)
	for i := range pods {
		pods[i] = n.newPod(fmt.Sprintf("c%03d", i), fmt.Sprint("pod-", i))
	}
	var done sync.WaitGroup
	var mu sync.Mutex
	seen := map[netip.Addr]bool{}
	for _, p := range pods {
		done.Go(func() {
			if _, err := p.Add(); err != nil {
				t.Errorf("ADD of %s: %v", p.Args.ContainerID, err)
				return
			}
			for _, node := range []netip.Addr{cnitest.Node4, cnitest.Node6} {
				if err := cnitest.Connect(p.NetNS,
					netip.AddrPortFrom(node, cnitest.Port)); err != nil {
					t.Errorf("%s to %s: %v", p.Args.ContainerID, node, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, addr := range p.Addrs {
				if seen[addr] {
					t.Errorf("two pods have %s", addr)
				}
				seen[addr] = true
			}
		})
	}
	done.Wait()
	if len(seen) != 200 || len(n.HostLinks()) != 100 {
		t.Errorf("%d addresses, %d links", len(seen), len(n.HostLinks()))
	}
	for _, p := range pods {
		done.Go(func() {
			if err := p.Del(); err != nil {
				t.Errorf("DEL of %s: %v", p.Args.ContainerID, err)
			}
		})
	}
	done.Wait()
	n.Expect()
	n.expectLinks(0)
}

// TestHostEndHeals: the server repairs what others do to a pod's host end, and counts that.
func TestHostEndHeals(t *testing.T) {
	t.Parallel()
	n := newHealingNode(t)
	p := n.newPod("c1", "pod-a")
	cnitest.Serve(t, p.NetNS)
	p.MustAdd()
	works := func() bool {
		for _, addr := range p.Addrs {
			if cnitest.Connect(n.NetNS, netip.AddrPortFrom(addr, cnitest.Port)) != nil {
				return false
			}
		}
		return true
	}
	if !works() {
		t.Fatal("the pod doesn't answer")
	}
	// It is left to the plugin at first. What happens then isn't counted.
	cnitest.Eventually(t, "it to be counted", func() bool {
		if works() {
			// its routes are gone
			cnitest.Lines(t, n.NetNS,
				"ip link set slupbcb64b37750 down; ip link set slupbcb64b37750 up")
		}
		return n.server.Stats().HealedHostEnds > 0
	})
	cnitest.Eventually(t, "the pod to answer again", works)
}
