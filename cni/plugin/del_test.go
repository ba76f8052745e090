package plugin

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/podlink"
	"github.com/sluice-net/sluice/test/cnitest"
)

// TestDelWithoutHelp: DEL needs neither the agent, nor the pod's namespace, nor the pod's name.
func TestDelWithoutHelp(t *testing.T) {
	t.Parallel()
	lose := map[string]func(n *testNode, p *testPod){
		"agent dead":  func(n *testNode, _ *testPod) { n.Stop() },
		"agent hangs": func(n *testNode, _ *testPod) { n.Stop(); listenAndHang(n.T, n.Socket) },
		"agent of another version": func(n *testNode, _ *testPod) {
			n.Stop()
			listenAndSay(n.T, n.Socket, "HTTP/1.1 404 Not Found\r\n\r\n404 page not found")
		},
		"no namespace": func(_ *testNode, p *testPod) { p.Args.Netns = "" },
		"namespace gone": func(_ *testNode, p *testPod) {
			p.Args.Netns = filepath.Join(p.n.T.TempDir(), "gone")
		},
		"namespace is a file": func(_ *testNode, p *testPod) {
			p.Args.Netns = cnitest.EmptyFile(p.n.T)
		},
		"no pod name": func(_ *testNode, p *testPod) { p.Args.Args = "" },
		"no pod name, no netns": func(_ *testNode, p *testPod) {
			p.Args.Args, p.Args.Netns = "", ""
		},
		"agent dead, no pod name":  func(n *testNode, p *testPod) { n.Stop(); p.Args.Args = "" },
		"agent dead, no namespace": func(n *testNode, p *testPod) { n.Stop(); p.Args.Netns = "" },
		"nothing": func(n *testNode, p *testPod) {
			n.Stop()
			p.Args.Args, p.Args.Netns = "", ""
		},
	}
	for name, lose := range lose {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.plugin.delTimeout = 300 * time.Millisecond
			p, other := n.newPod("c1", "pod-a"), n.newPod("c2", "pod-b")
			p.MustAdd()
			other.MustAdd()
			lose(n, p)
			for range 2 {
				p.MustDel()
				n.expectLinks(1) // only the other pod's
				_, err := os.Stat(cni.OpenRecords(n.StateDir).Path("c1", "eth0"))
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the record is still there: %v", err)
				}
			}
			n.expectAfterReap("c2/eth0")
			n.expectLinks(1)
		})
	}
}

// TestDetachFailsAfterDel: the pod is off the network all the same, and its addresses stay taken
// until the rules are gone.
func TestDetachFailsAfterDel(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.newPod("c1", "pod-a")
	cnitest.Serve(t, p.NetNS)
	p.MustAdd()
	if err := cnitest.Connect(n.NetNS, netip.AddrPortFrom(p.Addrs[0], cnitest.Port)); err != nil {
		t.Fatalf("before DEL: %v", err)
	}
	n.Enforcer.SetDetach(func(string) error { return errors.New("kernel says no") })
	p.MustDel()
	if err := cnitest.Connect(n.NetNS, netip.AddrPortFrom(p.Addrs[0], cnitest.Port)); err == nil {
		t.Error("the pod answers after its DEL")
	}
	cnitest.Eventually(t, "the agent to find out", func() bool {
		return strings.Contains(n.Log.String(), "kernel says no")
	})
	if l, err := cni.OpenRecords(n.StateDir).ReadLedger(); err != nil ||
		len(cnitest.InUse(l)) != 2 || len(n.server.Attachments()) != 0 {
		t.Errorf("taken are %v (%v), attached %v", cnitest.InUse(l), err, n.server.Attachments())
	}
	n.Enforcer.SetDetach(nil)
	n.expectAfterReap()
	p.expectNothing()
}

func TestDelRefuses(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.newPod("c1", "pod-a")
	p.Args.ContainerID = "../c1"
	cnitest.MustFail(t, p.Del(), types.ErrInvalidEnvironmentVariables, "containerID")
	p.Args.StdinData = []byte("{")
	cnitest.MustFail(t, p.Del(), types.ErrDecodingFailure)
}

// TestForeignLinkSurvivesDel: a link in the pod that isn't ours is left alone, also with our name.
func TestForeignLinkSurvivesDel(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.newPod("c1", "pod-a")
	cnitest.Lines(t, p.NetNS, "ip link add eth0 type veth peer name other")
	p.MustDel()
	if names := cnitest.LinkNames(t, p.NetNS); len(names) != 2 {
		t.Errorf("the pod has %v, want eth0 and other", names)
	}
}

// TestRoutesGoWithTheLink: the kernel takes the routes of a link with it, so a late route can't
// meet the next pod.
func TestRoutesGoWithTheLink(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.newPod("c1", "pod-a")
	p.MustAdd()
	count := func() (total int) {
		n.InNode(func() error {
			for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
				routes, err := netlink.RouteListFiltered(family,
					&netlink.Route{Protocol: podlink.RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
				if err != nil {
					return err
				}
				for _, route := range routes {
					if route.Type == unix.RTN_UNICAST { // not those of the podCIDRs, which stay
						total++
					}
				}
			}
			return nil
		})
		return total
	}
	if got := count(); got != 2 {
		t.Errorf("%d routes are ours, want 2", got)
	}
	p.MustDel()
	cnitest.Eventually(t, "the routes to go", func() bool { return count() == 0 })
}

// TestDelCutsAtOnce: when DEL returns, the pod sends and gets nothing, however long the rest takes;
// and the same pod, in the same namespace, can come back at once.
func TestDelCutsAtOnce(t *testing.T) {
	t.Parallel()
	n := newHealingNode(t)
	cnitest.Serve(t, n.NetNS)
	p := n.newPod("c1", "pod-a")
	cnitest.Serve(t, p.NetNS)
	for range 5 {
		hold := make(chan struct{})
		n.Enforcer.SetDetach(func(string) error { <-hold; return nil })
		p.MustAdd()
		for _, addr := range p.Addrs {
			if err := cnitest.Connect(n.NetNS, netip.AddrPortFrom(addr, cnitest.Port)); err != nil {
				t.Errorf("before DEL: %v", err)
			}
		}
		p.MustDel()
		p.MustDel() // doesn't wait either
		if links, err := n.podLinks(); err != nil || len(links) != 1 || links[0].IsUp {
			t.Errorf("after DEL: links %v and %v, want one that is down", links, err)
		}
		if err := cnitest.Connect(n.NetNS,
			netip.AddrPortFrom(p.Addrs[0], cnitest.Port)); err == nil {
			t.Error("the pod answers after its DEL")
		}
		if err := cnitest.Connect(p.NetNS,
			netip.AddrPortFrom(cnitest.Node4, cnitest.Port)); err == nil {
			t.Error("the node answers to the pod after its DEL")
		}
		n.Enforcer.SetDetach(nil)
		close(hold)
	}
	p.MustAdd()
	n.Expect("c1/eth0")
}

// TestConnectionsAreForgotten: what connection tracking knows of an address or a host port goes
// before a pod gets it, and after it had it.
func TestConnectionsAreForgotten(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	remember := func() {
		t.Helper()
		for _, entry := range []string{
			// the pod's address, as whose peer
			"-p udp -s 192.0.2.9 -d 10.1.0.1 --sport 1000 --dport 2000",
			"-p udp -s 10.1.0.1 -d 192.0.2.9 --sport 1000 --dport 2001",  // or as the client
			"-p udp -s fd00:1::1 -d fd00:9::9 --sport 1000 --dport 2002", // of both families
			"-p udp -s 192.0.2.9 -d 192.0.2.1 --sport 1000 --dport 53",   // its host port
			"-p udp -s 192.0.2.9 -d 192.0.2.1 --sport 1000 --dport 54",   // another port
			"-p udp -s 192.0.2.9 -d 10.1.0.99 --sport 1000 --dport 2000", // another pod
		} {
			cnitest.Lines(t, n.NetNS, "conntrack -I "+entry+
				" --timeout 600 2>/dev/null || conntrack -U "+entry+" --timeout 600")
		}
	}
	expectTwo := func(when string) {
		t.Helper()
		if left := cnitest.Lines(t, n.NetNS, "conntrack -L 2>/dev/null"); len(left) != 2 {
			t.Errorf("%s: %d are left, want the two of others:\n%s", when, len(left),
				strings.Join(left, "\n"))
		}
	}
	p := n.newPod("c1", "pod-a")
	p.Args.StdinData = []byte(strings.TrimSuffix(string(p.Args.StdinData), "}") +
		`,"runtimeConfig":{"portMappings":[{"hostPort":53,"containerPort":5353,"protocol":"udp"}],"bandwidth":{"ingressRate":8000000,"ingressBurst":8000000}}}`)
	remember()
	if got := cnitest.Lines(t, n.NetNS, "conntrack -L 2>/dev/null"); len(got) != 6 {
		t.Fatalf("%d entries, want 6:\n%s", len(got), strings.Join(got, "\n"))
	}
	p.MustAdd()
	expectTwo("when the pod is there")
	a := n.server.Attachments()[0]
	if len(a.HostPorts) != 1 || a.HostPorts[0].String() != "udp *:53" ||
		a.Bandwidth.IngressRate != 8_000_000 {
		t.Errorf("the attachment has %v and %+v", a.HostPorts, a.Bandwidth)
	}
	if got := cnitest.Lines(t, n.NetNS,
		"cat /proc/sys/net/ipv4/conf/"+a.Interface+"/route_localnet"); got[0] != "1" {
		t.Errorf("route_localnet is %s, so that 127.0.0.1 and the host port lead nowhere", got)
	}
	remember()
	p.MustDel()
	n.Expect() // its addresses are free once nothing is remembered
	expectTwo("when the pod is gone")
}
