package cni

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// TestTwoInterfaces: of one container, one after the other, don't disturb each other.
func TestTwoInterfaces(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.newPod("c1", "pod-a")
	serve(t, a.netns)
	a.mustAdd()
	first := a.addrs
	works := func() {
		t.Helper()
		for _, addr := range first {
			if err := connect(n.netns, netip.AddrPortFrom(addr, testPort)); err != nil {
				t.Errorf("%s: %v", addr, err)
			}
		}
	}
	a.args.IfName = "net1"
	a.mustAdd()
	works()
	n.expect("c1/eth0", "c1/net1")
	if got := strings.Join(lines(t, a.netns, "ip route; ip -6 route show default | cut -d' ' -f1-5"), "\n"); strings.Count(got, "dev eth0") != 2 || strings.Count(got, "dev net1") != 2 {
		t.Errorf("the pod's routes:\n%s", got)
	}
	a.mustDel()
	works()
	n.expect("c1/eth0")
}

// TestNewSandbox: an older sandbox of the same pod is replaced, and its late DEL disturbs nobody.
func TestNewSandbox(t *testing.T) {
	t.Parallel()
	n := newNode(t, healing)
	older, newer := n.newPod("c1", "pod-a"), n.newPod("c2", "pod-a")
	serve(t, newer.netns)
	older.mustAdd()
	newer.mustAdd()
	if names := podLinks(t, older.netns); len(names) > 0 {
		t.Errorf("the older sandbox still has %v", names)
	}
	for range 2 {
		if err := connect(n.netns, netip.AddrPortFrom(newer.addrs[0], testPort)); err != nil {
			t.Error(err)
		}
		n.expect("c2/eth0")
		older.mustDel()
	}
	newer.mustDel()
	newer.expectNothing()
}

// TestManyPodsAtOnce: each with its own addresses, each working when its ADD is done.
func TestManyPodsAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t, healing)
	serve(t, n.netns)
	pods := make([]*testPod, 100)
	for i := range pods {
		pods[i] = n.newPod(fmt.Sprintf("c%03d", i), fmt.Sprint("pod-", i))
	}
	var done sync.WaitGroup
	var mu sync.Mutex
	seen := map[netip.Addr]bool{}
	for _, p := range pods {
		done.Go(func() {
			if _, err := p.add(); err != nil {
				t.Errorf("ADD of %s: %v", p.args.ContainerID, err)
				return
			}
			for _, node := range []netip.Addr{node4, node6} {
				if err := connect(p.netns, netip.AddrPortFrom(node, testPort)); err != nil {
					t.Errorf("%s to %s: %v", p.args.ContainerID, node, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, addr := range p.addrs {
				if seen[addr] {
					t.Errorf("two pods have %s", addr)
				}
				seen[addr] = true
			}
		})
	}
	done.Wait()
	if len(seen) != 200 || len(n.hostLinks()) != 100 {
		t.Errorf("%d addresses, %d links", len(seen), len(n.hostLinks()))
	}
	for _, p := range pods {
		done.Go(func() {
			if err := p.del(); err != nil {
				t.Errorf("DEL of %s: %v", p.args.ContainerID, err)
			}
		})
	}
	done.Wait()
	n.settle()
	n.expectNoLinks()
	n.expect()
}

// TestHostEndHeals: what somebody does to a pod's host end is put right while the server runs, and counted.
func TestHostEndHeals(t *testing.T) {
	t.Parallel()
	n := newNode(t, healing)
	p := n.newPod("c1", "pod-a")
	serve(t, p.netns)
	p.mustAdd()
	works := func() bool {
		for _, addr := range p.addrs {
			if connect(n.netns, netip.AddrPortFrom(addr, testPort)) != nil {
				return false
			}
		}
		return true
	}
	if !works() {
		t.Fatal("the pod doesn't answer")
	}
	// It is left to the plugin at first. What happens then isn't counted.
	eventually(t, "it to be counted", func() bool {
		if works() {
			lines(t, n.netns, "ip link set slupbcb64b37750 down; ip link set slupbcb64b37750 up") // its routes are gone
		}
		return n.server.Stats().HealedHostEnds > 0
	})
	eventually(t, "the pod to answer again", works)
}
